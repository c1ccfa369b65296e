package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// probe asks from time to time whether the address still leads to where the
// subscription is. After a soft fail-over it does not: the old primary keeps its
// connections and answers PING, and gets nothing more published.
func (g *generation) probe(ctx context.Context) {
	for g.rest(ctx, jitter(g.feed.cfg.ProbeEvery)) {
		if err := g.probeOnce(ctx); err != nil {
			g.end(err)
			return
		}
	}
}

// rest waits for the next probe, and reports false when ctx ended first. With
// Sentinels it ends early when they name another primary: they do so as soon as it
// is promoted, while the old one may keep its connections and role for 10 s more.
func (g *generation) rest(ctx context.Context, d time.Duration) bool {
	s := g.feed.cfg.Server
	if s.sentinels == nil {
		return sleep(ctx, d)
	}
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if !sleep(ctx, min(left, jitter(askEvery))) {
			return false
		}
		if left <= askEvery {
			return true
		}
		s.sentinels.doubt() // one after the other, in case one of them is cut off
		// What goes wrong here goes wrong at the next probe, too, which says so.
		if addr, err := s.locatePrimary(ctx); err == nil && addr != g.link.addr {
			return true
		}
	}
}

// probeOnce connects anew, compares who is there, and publishes to this
// process's probe channel. A non-nil error is a reason to end the generation; not
// getting through is none, because the subscription may well live.
func (g *generation) probeOnce(ctx context.Context) error {
	p := g.feed
	token := rand.Text()
	g.token.Store(&token)
	// What answers an earlier probe comes too late from now on.
	select {
	case <-g.echo:
	default:
	}
	select {
	case <-g.passed:
	default:
	}
	var (
		moved     *fault
		published bool
		start     time.Time
	)
	var l *link
	l = p.cfg.Server.newLinkTo(ctx, target{not: g.link.addr}, func(ctx context.Context, cn *goredis.Conn) error {
		found, err := introduce(ctx, cn, p.missing)
		if moved = g.moved(l, found); moved != nil || err != nil {
			return err
		}
		start = time.Now()
		err = cn.Publish(ctx, p.probeChannel, token).Err()
		published = err == nil
		return optional(err, rightProbePublish(p.probeChannel), p.missing)
	})
	err := l.pubsub.Ping(context.WithoutCancel(ctx)) // what is used makes the connection
	if err != nil {
		err = l.why(err)
	}
	l.close()
	switch {
	case ctx.Err() != nil:
		return nil
	case moved != nil:
		return moved
	case err != nil:
		p.report.probeFailed(p.cfg.Server.fault(err, false))
		return nil
	}
	p.report.probeSent()
	if !published || !g.echoes.Load() {
		return nil
	}
	return g.awaitEcho(ctx, token, start)
}

// moved returns a fault when a new connection has led to another primary than the
// subscription's, or in a cluster to the subscription's own node, and that has
// changed since. Of other nodes it says nothing: they are meant to differ.
func (g *generation) moved(l *link, found identity) *fault {
	if g.feed.cfg.Server.cluster == nil {
		if found.differs(g.primary) {
			return faultMoved
		}
		return nil
	}
	found.role = "" // in a cluster a replica hears all that a primary hears
	sameNode := found.runID != "" && found.runID == g.primary.runID
	switch {
	case l.addr != g.link.addr && !sameNode:
		return nil
	case found.differs(g.primary):
		return faultMoved
	case l.state != "" && g.link.state != "" && l.state != g.link.state:
		return faultRejoined
	}
	return nil
}

// patienceFactor times ProbeTimeout is how long a probe may be on its way on a link
// that is never silent.
const patienceFactor = 12

// awaitEcho waits until the probe comes back. Behind a backlog it is late, and
// nothing is lost: so a PING with the same payload is sent after it when it is
// due. Redis answers on one connection in order. Only when the PONG has come
// and the probe has not, it will not come any more.
func (g *generation) awaitEcho(ctx context.Context, token string, start time.Time) error {
	p := g.feed
	late := time.After(p.cfg.ProbeTimeout)
	given := time.After(patienceFactor * p.cfg.ProbeTimeout)
	for {
		select {
		case <-ctx.Done():
			return nil
		case back := <-g.echo:
			p.probes.Observe(back.Sub(start))
			return nil
		case <-late:
			err := g.link.pubsub.Ping(context.WithoutCancel(ctx), token)
			if errors.Is(err, errOneDial) {
				return nil // the connection has just ended, and receive knows why
			}
			if err != nil {
				return err
			}
		case <-g.passed:
			select {
			case back := <-g.echo: // just before
				p.probes.Observe(back.Sub(start))
				return nil
			default:
				return faultNoEcho
			}
		case <-given:
			return faultNoEcho
		}
	}
}

// overtaken takes the answer to a PING that was sent after a probe. The receiving
// goroutine calls it.
func (g *generation) overtaken(payload string) {
	if token := g.token.Load(); token == nil || payload != *token {
		return
	}
	select {
	case g.passed <- struct{}{}:
	default:
	}
}

// probed takes what came in on the probe channel, which anyone may publish to.
// The receiving goroutine calls it.
func (g *generation) probed(payload string) {
	if token := g.token.Load(); token == nil || payload != *token {
		return
	}
	select {
	case g.echo <- time.Now():
	default:
	}
}
