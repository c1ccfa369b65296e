package redis

import (
	"context"
	"errors"

	"usercast/transport/redis/internal/pause"
	"usercast/transport/redis/internal/topology"
)

// watch ends the subscription if the connection is idle and a PING gets no reply. Only this detects
// a stalled Redis, or a peer that dropped off without a FIN: TCP alone would take about 15 minutes.
func (s *subscription) watch(ctx context.Context) {
	activity, timeout := &s.link.Activity, s.server.AnswerTimeout()
	for wait := s.cfg.PingAfter; pause.Sleep(ctx, pause.Jitter(wait)); {
		if wait = s.cfg.PingAfter - activity.Idle(); wait > 0 {
			continue
		}
		before := activity.Last()
		// The write is bounded by the client's WriteTimeout.
		err := s.ping(pendingCommand{kind: pingOnly})
		if errors.Is(err, topology.ErrEnded) {
			return // the connection has just ended, and receive returns why
		}
		if err != nil {
			s.end(err)
			return
		}
		if !pause.Sleep(ctx, timeout) {
			return
		}
		if activity.Last() == before && activity.Idle() > 0 {
			s.end(topology.FaultUnresponsive)
			return
		}
		wait = s.cfg.PingAfter
	}
}
