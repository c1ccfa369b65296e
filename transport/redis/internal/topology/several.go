package topology

import (
	"context"
	"net"
	"time"

	"usercast/transport/redis/internal/pause"
)

const (
	// redials is how many new connections must reach the same other server before a failover is
	// assumed. If the address selects one of two servers at random, this happens by chance once in
	// a thousand times.
	redials = 10
	// remember is for how many probe intervals a server is remembered. A balancer that selects the
	// server with the fewest connections never selects that of the subscription again. After two
	// generations it is recognized, because a failback is never that fast.
	remember = 3
)

// Servers records which servers new connections to one address have reached. After a failover, all
// connections reach the new server. With an address of several servers (a Kubernetes Service, a
// proxy, the configuration endpoint of a cluster), they reach different ones. For one goroutine
// at a time.
type Servers struct {
	seen map[string]sighting // by run_id
}

// A sighting is when connections have reached a server.
type sighting struct{ first, last time.Time }

// Saw records the server that a connection has reached, and reports whether another recent connection
// has reached it. every is the probe interval.
func (s *Servers) Saw(found Identity, every time.Duration) (known bool) {
	now := time.Now()
	s.forget(now, every)
	if found.RunID == "" {
		return false
	}
	if s.seen == nil {
		s.seen = make(map[string]sighting)
	}
	at, known := s.seen[found.RunID]
	if !known {
		at.first = now
	}
	at.last = now
	s.seen[found.RunID] = at
	return known
}

// SawBefore reports whether a recent connection has reached a server, and one before a time has, too.
func (s *Servers) SawBefore(found Identity, every time.Duration, before time.Time) bool {
	s.forget(time.Now(), every)
	at, known := s.seen[found.RunID]
	return known && at.first.Before(before)
}

func (s *Servers) forget(now time.Time, every time.Duration) {
	for runID, at := range s.seen {
		if now.Sub(at.last) > remember*every {
			delete(s.seen, runID)
		}
	}
}

// Several reports whether the address also leads to other servers than found. It makes up to redials
// connections, which takes up to a tenth of a probe interval.
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

// AreIndependent reports whether two servers behind one address are primaries with different data: what is published
// to one of them does not reach the other. Nodes of a cluster forward messages to each other.
func AreIndependent(a, b Identity) bool {
	return a.IsOther(b) && a.Role == "master" && b.Role == "master" && a.Data != b.Data && a.Mode != "cluster" && b.Mode != "cluster"
}

// IndependentAdvice is what to do about an address that leads to independent primaries.
const IndependentAdvice = "set --redis, and the Redis URL of the app, to the address of only one of them"

// SeveralAdvice returns which URL to use instead of an address that leads to several servers. found is one of them.
func (s *Server) SeveralAdvice(found Identity) string {
	if found.Mode == "cluster" {
		return "set --redis to " + s.scheme() + "+cluster://" + s.addr
	}
	return "set --redis to the address of the primary, or to " + s.scheme() + "+sentinel:// with the Sentinels that monitor it"
}

// PrimaryAdvice returns which URL to use instead of that of a replica, which reports its mode and its primary.
func (s *Server) PrimaryAdvice(mode, host, port string) string {
	if host == "" || port == "" || mode == "cluster" {
		return s.SeveralAdvice(Identity{Mode: mode})
	}
	return "set --redis to " + s.scheme() + "://" + net.JoinHostPort(host, port)
}

// scheme returns the first part of the scheme of the URL.
func (s *Server) scheme() string {
	if s.tls != nil {
		return "rediss"
	}
	return "redis"
}
