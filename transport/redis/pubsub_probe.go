package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/pause"
	"usercast/transport/redis/internal/topology"
)

// probe publishes a message over a new connection and waits until it comes back. Not to get
// through is not a reason to end the subscription, which may well work.
func (s *subscription) probe(ctx context.Context) error {
	token := rand.Text()
	s.token.Store(&token)
	// What answers an earlier probe comes too late from now on.
	select {
	case <-s.echo:
	default:
	}
	select {
	case <-s.pong:
	default:
	}
	var start time.Time // when it was first sent
	var deadline <-chan time.Time
	for {
		sent, err := s.sendProbe(ctx, token)
		if start.IsZero() && !sent.start.IsZero() {
			start = sent.start
			deadline = time.After(max(probeIntervals*s.probeEvery, s.cfg.ProbeTimeout))
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case sent.moved != nil && s.severalServers(ctx, s.primary, sent.found, sent.known):
			s.oneOfSeveral = true
			continue
		case sent.moved != nil:
			return sent.moved
		case err != nil:
			s.report.probeFailed(s.server.Fault(err, false))
			return nil
		}
		s.report.probeSent()
		echo := sent.published && s.echoes.Load()
		if done, err := s.awaitEcho(ctx, token, echo, start, deadline); done || err != nil {
			return err
		}
	}
}

// sentProbe is the result of one new connection.
type sentProbe struct {
	found     topology.Identity
	known     bool            // another connection led there lately
	moved     *topology.Fault // the address leads elsewhere; nothing was published
	published bool
	start     time.Time // just before that
}

// sendProbe makes a new connection, compares the servers, and publishes to this process's probe
// channel.
func (s *subscription) sendProbe(ctx context.Context, token string) (sent sentProbe, err error) {
	var l *topology.Conn
	l = s.server.NewConn(ctx, topology.Target{Not: s.link.Addr}, func(ctx context.Context, cn *goredis.Conn) (err error) {
		sent.found, err = topology.Introduce(ctx, cn, s.missing)
		if err != nil {
			return err
		}
		sent.known = s.servers.Saw(sent.found, s.probeEvery)
		if sent.moved = s.moved(l, sent.found); sent.moved != nil {
			return nil
		}
		sent.start = time.Now()
		err = cn.Publish(ctx, s.probeChannel, token).Err()
		sent.published = err == nil
		return acl.Optional(err, acl.PermissionProbePublish(s.probeChannel), s.missing)
	})
	err = l.Use()
	return sent, err
}

// moved returns a fault when a new connection has led to another primary than the
// subscription's, or in a cluster to the subscription's own node, and that has
// changed since. Other nodes are expected to differ.
func (s *subscription) moved(l *topology.Conn, found topology.Identity) *topology.Fault {
	if !s.server.IsCluster() {
		if s.oneOfSeveral && s.primary.IsOther(found) {
			return nil
		}
		if found.Differs(s.primary) {
			return topology.FaultMoved
		}
		return nil
	}
	found.Role = "" // in a cluster a replica receives all that a primary receives
	sameNode := found.RunID != "" && found.RunID == s.primary.RunID
	switch {
	case l.Addr != s.link.Addr && !sameNode:
		return nil
	case found.Differs(s.primary):
		return topology.FaultMoved
	case l.State != "" && s.link.State != "" && l.State != s.link.State:
		return topology.FaultRejoined
	}
	return nil
}

// probeIntervals times ProbeEvery is how long a probe may be in flight on a connection that
// is never idle: something may hide all that comes, as a wrong length does.
const probeIntervals = 2

// awaitEcho waits until the probe comes back, or, where it cannot be published, until a
// PING with the same payload is answered. Behind a backlog a probe is late, and nothing is
// lost: so such a PING is sent after it when it is due. Redis replies on one connection in
// order. Only if the PONG has come before the probe, the probe is lost.
//
// Where the address leads to several servers this does not prove anything, because not each
// of them passes on to the subscription what is published at it: awaitEcho returns false when the
// probe is to be sent to another one.
func (s *subscription) awaitEcho(ctx context.Context, token string, echo bool, start time.Time, deadline <-chan time.Time) (done bool, err error) {
	late := time.NewTimer(s.cfg.ProbeTimeout)
	defer late.Stop()
	var again <-chan time.Time
	switch {
	case !echo:
		late.Reset(0)
	case s.oneOfSeveral:
		late.Stop()
		again = time.After(pause.Jitter(s.probeEvery / redialsPerInterval))
	}
	for {
		select {
		case <-ctx.Done():
			return true, nil
		case back := <-s.echo:
			s.probes.Observe(back.Sub(start))
			return true, nil
		case <-late.C:
			if !echo && s.noPing.Load() {
				return true, nil // nothing can be verified
			}
			err := s.link.Ping(token)
			if errors.Is(err, topology.ErrEnded) {
				return true, nil // the connection has just ended, and receive returns why
			}
			if err != nil {
				return false, err
			}
		case <-s.pong:
			if !echo {
				return true, nil
			}
			select {
			case back := <-s.echo: // just before
				s.probes.Observe(back.Sub(start))
				return true, nil
			default:
				return false, topology.FaultNoEcho
			}
		case <-again:
			return false, nil
		case <-deadline:
			switch {
			case echo:
				return false, topology.FaultNoEcho
			case s.noPing.Load():
				return true, nil
			}
			return false, topology.FaultSilent
		}
	}
}

// probePong handles the reply to a PING that was sent after a probe. The receiving
// goroutine calls it.
func (s *subscription) probePong(payload string) {
	if token := s.token.Load(); token == nil || payload != *token {
		return
	}
	select {
	case s.pong <- struct{}{}:
	default:
	}
}

// probeEcho handles a message of the probe channel, to which any client may publish.
// The receiving goroutine calls it.
func (s *subscription) probeEcho(payload string) {
	if token := s.token.Load(); token == nil || payload != *token {
		return
	}
	select {
	case s.echo <- time.Now():
	default:
	}
}
