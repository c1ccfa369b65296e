package redis

import (
	"context"
	"errors"
	"time"
)

// watch ends the generation when it is not confirmed in time, or when the
// connection is silent and stays so although it is pinged. Nothing else finds a
// frozen Redis, or a peer that vanished without a FIN: TCP itself would take a
// quarter of an hour.
func (g *generation) watch(ctx context.Context) {
	cfg := &g.feed.cfg
	patience := cfg.Server.answerTimeout
	select {
	case <-g.confirmed:
	case <-ctx.Done():
		return
	case <-time.After(patience):
		g.end(faultSilent)
		return
	}
	for wait := cfg.PingAfter; sleep(ctx, jitter(wait)); {
		if wait = cfg.PingAfter - g.link.read.silence(); wait > 0 {
			continue
		}
		before := g.link.read.last.Load()
		// The write is bounded by the client's WriteTimeout.
		err := g.link.pubsub.Ping(context.WithoutCancel(ctx))
		if errors.Is(err, errOneDial) {
			return // the connection has just ended, and receive knows why
		}
		if err != nil {
			g.end(err)
			return
		}
		if !sleep(ctx, patience) {
			return
		}
		if g.link.read.last.Load() == before && g.link.read.silence() > 0 {
			g.end(faultSilent)
			return
		}
		wait = cfg.PingAfter
	}
}

// sleep waits for d, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
