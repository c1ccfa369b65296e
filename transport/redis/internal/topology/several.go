package topology

import (
	"context"
	"time"

	"usercast/transport/redis/internal/pause"
)

const (
	// redials is how many new connections must agree that an address leads elsewhere: with
	// two servers behind it that are chosen at random, one time in a thousand they do so
	// by chance.
	redials = 10
	// remember is for how many probe intervals a server is remembered. A balancer that leads
	// to the server with the fewest connections never leads back to that of the
	// subscription; two generations show what it is. No failback is as fast as that.
	remember = 3
)

// Servers remembers where new connections to one address led. A failover leads all of them
// to another server and none back; an address of several servers (a Kubernetes Service, a
// proxy, the configuration endpoint of a cluster) now to one, now to another. For one
// goroutine at a time.
type Servers struct {
	seen map[string]time.Time // run_id → when a connection led there last
}

// Saw notes where a connection led, and reports whether another one led there lately. Every
// is the probe interval.
func (s *Servers) Saw(found Identity, every time.Duration) (known bool) {
	now := time.Now()
	for runID, at := range s.seen {
		if now.Sub(at) > remember*every {
			delete(s.seen, runID)
		}
	}
	if found.RunID == "" {
		return false
	}
	if s.seen == nil {
		s.seen = make(map[string]time.Time)
	}
	_, known = s.seen[found.RunID]
	s.seen[found.RunID] = now
	return known
}

// Several reports whether the address of the server that was found leads to others as well.
// It looks up again as often as needed, which takes a tenth of a probe interval.
func (s *Servers) Several(ctx context.Context, every time.Duration, found Identity, lookUp func(context.Context) (Identity, error)) bool {
	for range redials {
		if !pause.Sleep(ctx, pause.Jitter(every/(10*redials))) {
			return false
		}
		other, err := lookUp(ctx)
		if err != nil {
			continue
		}
		s.Saw(other, every)
		if other.RunID != "" && other.RunID != found.RunID {
			return true
		}
	}
	return false
}
