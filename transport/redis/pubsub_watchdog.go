package redis

import (
	"context"
	"errors"

	"usercast/transport/redis/internal/pause"
	"usercast/transport/redis/internal/topology"
)

// watch ends the subscription when the connection is idle and stays so although a PING was
// sent. Nothing else notices a frozen Redis, or a peer that vanished without a FIN: TCP itself
// would take a quarter of an hour.
func (s *subscription) watch(ctx context.Context) {
	activity, timeout := &s.link.Activity, s.server.AnswerTimeout()
	for wait := s.cfg.PingAfter; pause.Sleep(ctx, pause.Jitter(wait)); {
		if wait = s.cfg.PingAfter - activity.Idle(); wait > 0 {
			continue
		}
		before := activity.Last()
		// The write is bounded by the client's WriteTimeout.
		err := s.link.Ping()
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
			s.end(topology.FaultSilent)
			return
		}
		wait = s.cfg.PingAfter
	}
}
