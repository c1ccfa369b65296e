package redis

import (
	"context"
	"time"
)

const (
	// redials is how many new connections must agree that an address leads elsewhere: with
	// two servers behind it that take turns at random, one time in a thousand they do so
	// by chance.
	redials = 10
	// redialsPerInterval is how many connections are made in a probe interval while the
	// probe waits for the server that passes it on.
	redialsPerInterval = 30
	// remember is for how many probe intervals a server is remembered. A balancer that leads
	// to the server with the fewest connections never leads back to that of the
	// subscription; two generations show what it is. No failback is as fast as that.
	remember = 3
)

// servers remembers where new connections to one address led. A failover leads all of them
// to another server and none back; an address of several servers (a Kubernetes Service, a
// proxy, the configuration endpoint of a cluster) now to one, now to another. For one
// goroutine at a time.
type servers struct {
	seen map[string]time.Time // run_id → when a connection led there last
}

// saw notes where a connection led, and reports whether another one led there lately. Every
// is the probe interval.
func (s *servers) saw(found identity, every time.Duration) (known bool) {
	now := time.Now()
	for runID, at := range s.seen {
		if now.Sub(at) > remember*every {
			delete(s.seen, runID)
		}
	}
	if found.runID == "" {
		return false
	}
	if s.seen == nil {
		s.seen = make(map[string]time.Time)
	}
	_, known = s.seen[found.runID]
	s.seen[found.runID] = now
	return known
}

// several reports whether the address of the server that was found leads to others as well.
// It looks up again as often as needed, which takes a tenth of a probe interval.
func (s *servers) several(ctx context.Context, every time.Duration, found identity, lookUp func(context.Context) (identity, error)) bool {
	for range redials {
		if !sleep(ctx, jitter(every/(10*redials))) {
			return false
		}
		other, err := lookUp(ctx)
		if err != nil {
			continue
		}
		s.saw(other, every)
		if other.runID != "" && other.runID != found.runID {
			return true
		}
	}
	return false
}

// isOther reports whether found is another process than a, and both are known.
func (a identity) isOther(found identity) bool {
	return a.runID != "" && found.runID != "" && a.runID != found.runID
}

// fixed reports whether the server is at an address that is only looked up by name, where
// no Sentinel and no cluster says which servers there are.
func (s *Server) fixed() bool { return s.sentinels == nil && s.cluster == nil }
