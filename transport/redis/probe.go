package redis

import (
	"context"
	"crypto/rand"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// probe asks from time to time whether the address still leads to where the
// subscription is. After a soft fail-over it does not: the old primary keeps its
// connections and answers PING, and gets nothing more published.
func (g *generation) probe(ctx context.Context) {
	for sleep(ctx, jitter(g.feed.cfg.ProbeEvery)) {
		if err := g.probeOnce(ctx); err != nil {
			g.end(err)
			return
		}
	}
}

// probeOnce connects anew, compares who is there, and publishes to this
// process's probe channel. A non-nil error is a reason to end the generation; not
// getting through is none, because the subscription may well live.
func (g *generation) probeOnce(ctx context.Context) error {
	p := g.feed
	token := rand.Text()
	select {
	case <-g.echo: // of a probe that was given up
	default:
	}
	g.token.Store(&token)
	var (
		moved     bool
		published bool
		start     time.Time
	)
	l := p.cfg.Server.newLink(ctx, func(ctx context.Context, cn *goredis.Conn) error {
		found, err := introduce(ctx, cn, p.missing)
		if moved = found.differs(g.primary); moved || err != nil {
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
	case moved:
		return faultMoved
	case err != nil:
		p.report.probeFailed(p.cfg.Server.fault(err, false))
		return nil
	}
	p.report.probeSent()
	if !published || !g.echoes.Load() {
		return nil
	}
	select {
	case <-ctx.Done():
	case back := <-g.echo:
		p.probes.Observe(back.Sub(start))
	case <-time.After(p.cfg.ProbeTimeout):
		return faultNoEcho
	}
	return nil
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
