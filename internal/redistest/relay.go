package redistest

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// Relay is an address in front of servers, like a load balancer or a DNS name. New connections go to the current target.
// Open ones keep their server, or become unresponsive. (toxiproxy has the same features, but would add its HTTP API,
// metrics and logging libraries to go.mod.)
type Relay struct {
	listener net.Listener
	wg       sync.WaitGroup
	replies  func(dst, src net.Conn) error // copies what the server sends; nil: unchanged

	// Guarded by mu.
	mu       sync.Mutex
	targets  []string // new connections go to them in turn
	pairs    []*pair
	accepted int
	closed   bool
}

// pair is one relayed connection.
type pair struct {
	client, server net.Conn
	silent         atomic.Bool
	closed         atomic.Bool
}

// StartRelay starts a relay to target, a host:port. It stops at the end of the test.
func StartRelay(tb testing.TB, target string) *Relay {
	tb.Helper()
	return startRelay(tb, target, nil)
}

func startRelay(tb testing.TB, target string, replies func(dst, src net.Conn) error) *Relay {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &Relay{listener: l, targets: []string{target}, replies: replies}
	r.wg.Go(r.accept)
	tb.Cleanup(r.close)
	return r
}

// Addr returns the relay's host:port.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// URL returns the URL of the relay for --redis.
func (r *Relay) URL() string { return "redis://" + r.Addr() }

// SetTarget sends new connections to another server. Open ones keep their server, as in a soft failover behind the same
// address.
func (r *Relay) SetTarget(target string) { r.SetTargets(target) }

// SetTargets sends new connections to several servers in turn, beginning with the first one.
func (r *Relay) SetTargets(targets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.targets = targets
}

// Accepted returns the number of connections that were made to the relay.
func (r *Relay) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Open returns the number of relayed connections that neither end has closed.
func (r *Relay) Open() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pairs {
		if !p.closed.Load() {
			n++
		}
	}
	return n
}

// Silence makes the open connections half-open: neither end receives anything any more, not even the end of the connection.
// New connections are not affected.
func (r *Relay) Silence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pairs {
		p.silent.Store(true)
	}
}

// Disconnect closes the open connections.
func (r *Relay) Disconnect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pairs {
		p.close()
	}
	r.pairs = nil
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		target := r.targets[0]
		r.targets = append(slices.Clone(r.targets[1:]), target)
		r.accepted++
		r.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p := &pair{client: client, server: server}
		r.mu.Lock()
		if r.closed {
			p.close()
		}
		r.pairs = append(r.pairs, p)
		r.mu.Unlock()
		r.wg.Go(func() { p.copy(server, client) })
		r.wg.Go(func() {
			if r.replies == nil {
				p.copy(client, server)
				return
			}
			_ = r.replies(client, server) // the connection has ended
			p.close()
		})
	}
}

// copy moves bytes from src to dst. When the pair is silent, it discards them and keeps both sockets open, even if one end
// closes.
func (p *pair) copy(dst, src net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if p.silent.Load() {
			if err != nil {
				return
			}
			continue
		}
		if n > 0 {
			_, _ = dst.Write(buf[:n]) // the Read of the other direction returns the error
		}
		if err != nil {
			p.close()
			return
		}
	}
}

func (p *pair) close() {
	p.closed.Store(true)
	_ = p.client.Close()
	_ = p.server.Close()
}

func (r *Relay) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for _, p := range r.pairs {
		p.close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}
