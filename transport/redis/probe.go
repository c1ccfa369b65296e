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

// probeOnce sends a probe and waits until it comes back. A non-nil error is a reason to
// end the generation; not getting through is none, because the subscription may well live.
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
	given := time.NewTimer(max(givenIntervals*p.cfg.ProbeEvery, p.cfg.ProbeTimeout))
	defer given.Stop()
	for start := (time.Time{}); ; {
		sent, err := g.sendProbe(ctx, token)
		if start.IsZero() {
			start = sent.start
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case sent.moved != nil && p.cfg.Server.fixed() && g.primary.isOther(sent.found) &&
			(sent.known || p.servers.several(ctx, p.cfg.ProbeEvery, sent.found, p.lookUp)):
			g.several = true
			p.report.severalServers(p.cfg.Server, sent.found)
			continue
		case sent.moved != nil:
			return sent.moved
		case err != nil:
			p.report.probeFailed(p.cfg.Server.fault(err, false))
			return nil
		}
		p.report.probeSent()
		echo := sent.published && g.echoes.Load()
		if came, err := g.awaitEcho(ctx, token, echo, start, given.C); came || err != nil {
			return err
		}
	}
}

// sentProbe is what came of one new connection.
type sentProbe struct {
	found     identity
	known     bool   // another connection led there lately
	moved     *fault // the address leads elsewhere; nothing was published
	published bool
	start     time.Time // just before that
}

// sendProbe connects anew, compares who is there, and publishes to this process's probe
// channel.
func (g *generation) sendProbe(ctx context.Context, token string) (sent sentProbe, err error) {
	p := g.feed
	var l *link
	l = p.cfg.Server.newLinkTo(ctx, target{not: g.link.addr}, func(ctx context.Context, cn *goredis.Conn) (err error) {
		sent.found, err = introduce(ctx, cn, p.missing)
		if err != nil {
			return err
		}
		sent.known = p.servers.saw(sent.found, p.cfg.ProbeEvery)
		if sent.moved = g.moved(l, sent.found); sent.moved != nil {
			return nil
		}
		sent.start = time.Now()
		err = cn.Publish(ctx, p.probeChannel, token).Err()
		sent.published = err == nil
		return optional(err, rightProbePublish(p.probeChannel), p.missing)
	})
	err = l.use(ctx)
	return sent, err
}

// lookUp connects anew and asks who is there.
func (p *PubSub) lookUp(ctx context.Context) (found identity, err error) {
	err = p.cfg.Server.ask(ctx, func(ctx context.Context, cn *goredis.Conn) (err error) {
		found, err = introduce(ctx, cn, p.missing)
		return err
	})
	return found, err
}

// moved returns a fault when a new connection has led to another primary than the
// subscription's, or in a cluster to the subscription's own node, and that has
// changed since. Of other nodes it says nothing: they are meant to differ.
func (g *generation) moved(l *link, found identity) *fault {
	if g.feed.cfg.Server.cluster == nil {
		if g.several && g.primary.isOther(found) {
			return nil
		}
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

// givenIntervals times ProbeEvery is how long a probe may be in flight on a connection that
// is never idle: something may hide all that comes, as a wrong length does.
const givenIntervals = 2

// awaitEcho waits until the probe comes back, or, where it cannot be published, until a
// PING with the same payload is answered. Behind a backlog a probe is late, and nothing is
// lost: so such a PING is sent after it when it is due. Redis answers on one connection in
// order. Only when the PONG has come and the probe has not, it will not come any more.
//
// Where the address leads to several servers that is no proof, because not each of them
// passes on to the subscription what is published at it: awaitEcho returns false when the
// probe is to be sent to another one.
func (g *generation) awaitEcho(ctx context.Context, token string, echo bool, start time.Time, given <-chan time.Time) (came bool, err error) {
	p := g.feed
	late := time.NewTimer(p.cfg.ProbeTimeout)
	defer late.Stop()
	var again <-chan time.Time
	switch {
	case !echo:
		late.Reset(0)
	case g.several:
		late.Stop()
		again = time.After(jitter(p.cfg.ProbeEvery / redialsPerInterval))
	}
	for {
		select {
		case <-ctx.Done():
			return true, nil
		case back := <-g.echo:
			p.probes.Observe(back.Sub(start))
			return true, nil
		case <-late.C:
			if !echo && g.noPing.Load() {
				return true, nil // nothing can be found out
			}
			err := g.link.pubsub.Ping(context.WithoutCancel(ctx), token)
			if errors.Is(err, errOneDial) {
				return true, nil // the connection has just ended, and receive knows why
			}
			if err != nil {
				return false, err
			}
		case <-g.passed:
			if !echo {
				return true, nil
			}
			select {
			case back := <-g.echo: // just before
				p.probes.Observe(back.Sub(start))
				return true, nil
			default:
				return false, faultNoEcho
			}
		case <-again:
			return false, nil
		case <-given:
			switch {
			case echo:
				return false, faultNoEcho
			case g.noPing.Load():
				return true, nil
			}
			return false, faultSilent
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
