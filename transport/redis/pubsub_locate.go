package redis

import (
	"context"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/pause"
	"usercast/transport/redis/internal/topology"
)

// A client waits if this hub does not know the place of its id: the hub may only be behind. See hub.AwaitPlaces.
//
// R6: A PING is sent on the subscription. Its reply arrives behind everything that was published before, so then this hub
// has what the client has received from another one. Clients that come meanwhile share the next PING.
//
// R7: If the marker of the id is still unknown, this hub may be subscribed to a server that the other hubs have left. So a
// new connection must reach the same server; if it does not, a new generation begins, and a PING is sent again.

// defaultLookUpEvery is the minimum time between the starts of two look-ups of R7. It is also the pause after Redis has
// refused a question of R6.
const defaultLookUpEvery = time.Second

// poke wakes the goroutine that receives from a channel with one slot. It never blocks.
func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default: // it is woken already, and has not looked yet
	}
}

// locate sends the PINGs of R6, one at a time. Where Redis refuses it, locate subscribes to one pattern once more: Redis
// confirms that again, in order, and changes nothing. If that is refused as well, Redis is busy, and locate asks again later.
func (s *subscription) locate(ctx context.Context) {
	var asked uint64 // the ticket in flight, or 0
	var byPattern bool
	due, again := true, false
	for {
		if asked != 0 && s.answered.Load() == asked {
			asked = 0
		}
		if asked == 0 && due {
			asked, due = s.cfg.Hub.Waiting(), false
			again, byPattern = asked != 0, s.noPing.Load()
		}
		if again {
			again = false
			err := s.ask(asked, byPattern)
			if errors.Is(err, topology.ErrEnded) {
				return // the connection has just ended, and receive returns why
			}
			if err != nil {
				s.end(err)
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.waiting:
			due = true
		case <-s.replies:
		case <-s.refusals:
			if byPattern && !pause.Sleep(ctx, s.cfg.lookUpEvery) {
				return
			}
			again, byPattern = true, !byPattern || s.noPing.Load()
		}
	}
}

func (s *subscription) ask(ticket uint64, byPattern bool) error {
	if byPattern {
		ask := pendingCommand{kind: askByPattern, ticket: ticket, pattern: s.patterns[0]}
		return s.send(func() error { return s.link.PSubscribe(ask.pattern) }, ask)
	}
	return s.ping(pendingCommand{kind: askByPing, ticket: ticket})
}

// received says that everything has arrived that was published before the clients of a ticket came. The receiving
// goroutine calls it.
func (s *subscription) received(ticket uint64) {
	if s.cfg.Hub.Received(ticket) {
		s.unknown.Store(ticket)
		poke(s.unconfirmed)
	}
	s.answered.Store(ticket)
	poke(s.replies)
}

// confirm makes the look-ups of R7, one at a time. While a look-up fails, the clients wait: the prober logs the reason.
func (s *subscription) confirm(ctx context.Context) {
	var confirmed uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.unconfirmed:
		}
		for ticket := s.unknown.Load(); confirmed != ticket; ticket = s.unknown.Load() {
			again := time.After(s.cfg.lookUpEvery)
			same, moved := s.isAtSameServer(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case moved != nil:
				s.end(moved)
				return
			case same:
				s.cfg.Hub.Confirmed(ticket)
				confirmed = ticket
			}
			select {
			case <-ctx.Done():
				return
			case <-again:
			}
		}
	}
}

// isAtSameServer reports whether the subscription is at the server that other hubs are subscribed to, as far as a new
// connection can determine that. It returns false if it may be so after another look-up, and a fault if it is not.
func (s *subscription) isAtSameServer(ctx context.Context) (same bool, moved error) {
	if s.oneOfSeveral.Load() || s.primary.RunID == "" {
		return true, nil // then the server cannot be compared
	}
	l, found, err := s.lookUpAt(ctx, topology.Target{Not: s.link.Addr})
	if err != nil {
		return false, nil
	}
	if moved := s.moved(l, found); moved != nil {
		if s.severalServers(ctx, s.primary, found, s.reachedBefore(found)) {
			s.oneOfSeveral.Store(true)
			return true, nil
		}
		return false, moved
	}
	owner := l.Owner(s.cfg.ControlChannel)
	if owner == "" || owner == s.link.Addr || owner == s.avoiding.avoid() {
		return true, nil
	}
	l, found, err = s.lookUpAt(ctx, topology.Target{Addr: owner})
	switch {
	case err != nil && ctx.Err() == nil:
		return true, nil // while the owner is down, no hub is subscribed to it
	case err == nil && found.RunID == s.primary.RunID:
		return true, nil // it has another address
	case err == nil && l.Owner(s.cfg.ControlChannel) == owner:
		poke(s.hurry) // the prober moves the subscription, unless the owner is partitioned
	}
	return false, nil
}

// reachedBefore reports whether a connection has recently reached a server before this subscription was made: then that server
// has not replaced the one of the subscription. The prober may have reached it since.
func (s *subscription) reachedBefore(found topology.Identity) bool {
	s.asking.Lock()
	defer s.asking.Unlock()
	return s.servers.SawBefore(found, s.probeEvery, s.since)
}

// lookUpAt makes a new connection and returns the identity of the server, and the closed connection.
func (s *subscription) lookUpAt(ctx context.Context, to topology.Target) (l *topology.Conn, found topology.Identity, err error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	l = s.server.NewConn(ctx, to, func(ctx context.Context, cn *goredis.Conn) (err error) {
		found, err = topology.Introduce(ctx, cn, s.missing)
		return err
	})
	return l, found, l.Use()
}
