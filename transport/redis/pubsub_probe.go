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

// probe checks the subscription, and whether it is at the right node of a cluster.
func (s *subscription) probe(ctx context.Context) error {
	if err := s.probeEchoes(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	return s.probeOwner(ctx)
}

// newToken returns the payload of the next probe.
func (s *subscription) newToken() string {
	token := rand.Text()
	s.token.Store(&token)
	// Discard a late reply to an earlier probe.
	select {
	case <-s.echo:
	default:
	}
	select {
	case <-s.pong:
	default:
	}
	return token
}

// probeEchoes publishes a message over a new connection and waits until the subscription receives it. If
// the new connection fails, the subscription is kept, because it may still work.
func (s *subscription) probeEchoes(ctx context.Context) error {
	token := s.newToken()
	var start time.Time // when the probe was first published
	var deadline <-chan time.Time
	for {
		sent, err := s.sendProbe(ctx, topology.Target{Not: s.link.Addr}, token)
		if start.IsZero() && !sent.start.IsZero() {
			start = sent.start
			deadline = time.After(max(probeIntervals*s.probeEvery, s.cfg.ProbeTimeout))
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case sent.moved != nil && s.severalServers(ctx, s.primary, sent.found, sent.known):
			s.oneOfSeveral.Store(true)
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
	known     bool            // another recent connection reached it
	moved     *topology.Fault // the address leads to another server; nothing was published
	owner     string          // in a cluster, the owner of the slot of the control channel, as that node reports it
	published bool
	start     time.Time // just before publishing
}

// sendProbe makes a new connection, compares the servers, and publishes to this process's probe
// channel.
func (s *subscription) sendProbe(ctx context.Context, to topology.Target, token string) (sent sentProbe, err error) {
	s.asking.Lock()
	defer s.asking.Unlock()
	var l *topology.Conn
	l = s.server.NewConn(ctx, to, func(ctx context.Context, cn *goredis.Conn) (err error) {
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
	if err = l.Use(); err == nil {
		if sent.owner = l.Owner(s.cfg.ControlChannel); sent.owner != "" {
			s.owner = sent.owner
		}
	}
	return sent, err
}

// moved returns a fault if a new connection has reached another primary than that of the
// subscription. In a cluster, it returns a fault only if the connection has reached the node of the
// subscription and that node has changed: other nodes are expected to differ.
func (s *subscription) moved(l *topology.Conn, found topology.Identity) *topology.Fault {
	if !s.server.IsCluster() {
		if s.oneOfSeveral.Load() && s.primary.IsOther(found) {
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

// probeIntervals times ProbeEvery is how long a probe may be in flight on a connection that is
// never idle. Without this bound, a reply with a wrong length could hide all later messages.
const probeIntervals = 2

// awaitEcho waits until the subscription receives the probe. If the probe cannot be published, it
// waits for the reply to a PING instead. An error reply is one, too.
//
// A probe behind a backlog is late, but not lost. So when ProbeTimeout has passed, a PING is sent on
// the subscription: Redis replies in order, and if its reply arrives before the probe, the probe
// is lost.
//
// If the address leads to several servers, a lost probe proves nothing, because some of them do not
// forward messages to the server of the subscription. Then awaitEcho returns false when the probe
// should be sent to another server.
func (s *subscription) awaitEcho(ctx context.Context, token string, echo bool, start time.Time, deadline <-chan time.Time) (done bool, err error) {
	late := time.NewTimer(s.cfg.ProbeTimeout)
	defer late.Stop()
	var again <-chan time.Time
	switch {
	case !echo:
		late.Reset(0)
	case s.oneOfSeveral.Load():
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
			err := s.ping(pendingCommand{kind: pingProbe, token: token}, token)
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
			case back := <-s.echo: // it arrived just before the reply
				s.probes.Observe(back.Sub(start))
				return true, nil
			default:
				return false, topology.FaultNoEcho
			}
		case <-again:
			return false, nil
		case <-deadline:
			if echo {
				return false, topology.FaultNoEcho
			}
			return false, topology.FaultUnresponsive
		}
	}
}

// probePong handles the reply to the PING that was sent after a probe. The receiving goroutine calls it.
func (s *subscription) probePong(token string) {
	if newest := s.token.Load(); newest == nil || token != *newest {
		return
	}
	select {
	case s.pong <- struct{}{}:
	default:
	}
}

// probeEcho handles a message on the probe channel, to which any client may publish. The receiving
// goroutine calls it.
func (s *subscription) probeEcho(payload string) {
	if token := s.token.Load(); token == nil || payload != *token {
		return
	}
	select {
	case s.echo <- time.Now():
	default:
	}
}
