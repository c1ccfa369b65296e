package redis

import (
	"context"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// probe connects anew from time to time and ends the generation when another server
// answers: after a soft failover the old primary keeps its connections.
func (l *Log) probe(ctx context.Context, at *atomic.Pointer[whereabouts], end context.CancelCauseFunc) {
	several := false // the address leads to other servers as well
	for sleep(ctx, jitter(l.cfg.ProbeEvery)) {
		var known bool
		before := at.Load()
		primary := before.identity
		found, err := l.lookUp(ctx)
		if err == nil {
			known = l.servers.saw(found, l.cfg.ProbeEvery)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			l.report.probeFailed(l.cfg.Server.fault(err, false))
			continue
		case !found.differs(primary):
			at.CompareAndSwap(before, &whereabouts{primary, false})
		case before != at.Load() || before.asking:
			continue // a redirection was followed meanwhile, or the slot is still the other node's
		case !l.cfg.Server.fixed() || !primary.isOther(found):
			end(faultMoved)
			return
		case !several && !known && !l.servers.several(ctx, l.cfg.ProbeEvery, found, l.lookUp):
			end(faultMoved)
			return
		default:
			several = true
			l.report.severalServers(l.cfg.Server, found)
			if !l.isAmong(ctx, primary) {
				end(faultMoved)
				return
			}
		}
		l.report.probeSent()
	}
}

// isAmong looks up the address until it leads to primary; false if it does not within two
// probe intervals.
func (l *Log) isAmong(ctx context.Context, primary identity) bool {
	for end := time.Now().Add(givenIntervals * l.cfg.ProbeEvery); time.Now().Before(end); {
		if !sleep(ctx, jitter(l.cfg.ProbeEvery/redialsPerInterval)) {
			return true
		}
		if found, err := l.lookUp(ctx); err == nil && found.runID == primary.runID {
			return !found.differs(primary)
		}
	}
	return false
}

// lookUp connects anew and asks who is there.
func (l *Log) lookUp(ctx context.Context) (found identity, err error) {
	err = l.cfg.Server.newLinkFor(ctx, l.cfg.Key, func(ctx context.Context, c *goredis.Conn) (err error) {
		found, err = introduce(ctx, c, l.missing)
		return err
	}).use(ctx)
	return found, err
}
