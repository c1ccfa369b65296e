package load

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// dialWorkers is how many connections are made concurrently, so that one slow accept does not delay the ramp.
const dialWorkers = 32

// maxFirstFailures is the number of failures after which no more streams are tried, if none has opened. A wrong port does
// not need a thousand attempts.
const maxFirstFailures = 32

type readers interface {
	add(net.Conn, *stream) error
	close()
}

// connect opens the streams and waits for the responses. Streams without a response have failed then. If ctx has ended,
// they count as not tried.
func (r *run) connect(ctx context.Context) {
	begin := time.Now()
	if r.cfg.HTTP2 {
		r.connectHTTP2(ctx, begin)
	} else {
		r.connectHTTP1(ctx, begin)
	}
	t := r.tally
	pending := func() (n int) {
		t.mu.Lock()
		defer t.mu.Unlock()
		for i := range r.streams {
			if r.streams[i].state == requested {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(r.cfg.Patience); pending() > 0 && time.Now().Before(deadline); {
		if !sleep(ctx, time.Millisecond) {
			break
		}
	}
	t.lock()
	defer t.unlock()
	for i := range r.streams {
		s := &r.streams[i]
		if s.state == requested && ctx.Err() != nil {
			s.state = untried
		}
		s.fail(noResponse(reasonTimeout), "")
	}
}

// waitTurn waits until stream i is due. It returns false if the stream is not to be tried.
func (r *run) waitTurn(ctx context.Context, begin time.Time, i int) bool {
	due := begin.Add(timeFor(i, r.cfg.Ramp))
	for r.shouldContinue() {
		wait := time.Until(due)
		if !sleep(ctx, min(wait, pollInterval)) {
			return false
		}
		if wait <= pollInterval {
			return r.shouldContinue()
		}
	}
	return false
}

func (r *run) shouldContinue() bool {
	t := r.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.opened > 0 || t.unopened < maxFirstFailures
}

// sleep returns false if ctx has ended, even while it sleeps.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *run) connectHTTP1(ctx context.Context, begin time.Time) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(dialWorkers, len(r.streams)) {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(r.streams) || !r.waitTurn(ctx, begin, i) {
					return
				}
				if err := r.request(ctx, i); err != nil {
					r.fail(ctx, i, err)
				}
			}
		})
	}
	workers.Wait()
}

// fail records that the request of stream i could not be sent.
func (r *run) fail(ctx context.Context, i int, err error) {
	r.tally.lock()
	defer r.tally.unlock()
	if ctx.Err() != nil {
		r.streams[i].state = untried
	}
	r.streams[i].fail(reasonFor(err), "")
}

// request sends the request of stream i and passes the connection to the reader.
func (r *run) request(ctx context.Context, i int) error {
	s := &r.streams[i]
	target, conn, err := r.dial(ctx, i)
	if err != nil {
		return err
	}
	var request strings.Builder
	request.WriteString("GET " + expand(target.path, s.user) + " HTTP/1.1\r\nHost: " + target.Host + "\r\n")
	for _, f := range r.cfg.fields(target, s.user) {
		request.WriteString(f.name + ": " + f.value + "\r\n")
	}
	request.WriteString("\r\n")
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := conn.Write([]byte(request.String())); err != nil {
		_ = conn.Close()
		return err
	}
	if target.TLS {
		return r.tlsReaders.add(conn, s)
	}
	return r.readers.add(conn, s)
}

// begin records that stream i is being requested.
func (r *run) begin(i int) {
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	r.streams[i].state, r.streams[i].requestedAt = requested, r.tally.clock()
}

// dial opens the connection for stream i and, with HTTP/2, for the streams after it.
func (r *run) dial(ctx context.Context, i int) (Target, net.Conn, error) {
	target := r.cfg.Targets[i%len(r.cfg.Targets)]
	dialer := net.Dialer{Timeout: r.cfg.Patience, KeepAlive: -1}
	if n := len(r.cfg.From); n > 0 {
		from := r.cfg.From[i/len(r.cfg.Targets)%n]
		dialer.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	r.begin(i)
	conn, err := dialer.DialContext(ctx, "tcp", target.Addr)
	if err != nil {
		return target, nil, err
	}
	// The connection ends with a reset. Otherwise each stream would occupy its port for a minute, and the next run could
	// run out of ports.
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	if target.TLS {
		secure, err := r.handshake(ctx, target, conn)
		if err != nil {
			_ = conn.Close()
			return target, nil, err
		}
		conn = secure
	}
	return target, conn, nil
}

// handshake performs a TLS handshake that negotiates the run's version of HTTP.
func (r *run) handshake(ctx context.Context, target Target, conn net.Conn) (net.Conn, error) {
	cfg := new(tls.Config)
	if r.cfg.TLS != nil {
		cfg = r.cfg.TLS.Clone()
	}
	cfg.ServerName, cfg.NextProtos = target.name(), []string{"http/1.1"}
	if r.cfg.HTTP2 {
		cfg.NextProtos = []string{"h2"}
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Patience)
	defer cancel()
	secure := tls.Client(conn, cfg)
	err := secure.HandshakeContext(ctx)
	noProtocol := err != nil && strings.Contains(err.Error(), "no application protocol") // the text of alert 120: Go does not export a type for it
	switch {
	case r.cfg.HTTP2 && (noProtocol || err == nil && secure.ConnectionState().NegotiatedProtocol != "h2"):
		return nil, reasonNoHTTP2
	case noProtocol:
		return nil, reasonNoHTTP1
	}
	return secure, err
}

// connectHTTP2 opens streams one after the other. Only new connections take a round trip, and there are few of them.
func (r *run) connectHTTP2(ctx context.Context, begin time.Time) {
	type slot struct {
		conn *http2Conn
		used int
	}
	slots := make([]slot, len(r.cfg.Targets))
	for i := range r.streams {
		if !r.waitTurn(ctx, begin, i) {
			return
		}
		s, p := &r.streams[i], &slots[i%len(slots)]
		target := r.cfg.Targets[i%len(slots)]
		if p.conn == nil || p.used >= p.conn.limit {
			_, raw, err := r.dial(ctx, i)
			if err == nil {
				p.conn, err = newHTTP2(r.tally, raw)
				p.used = 0
			}
			if err != nil {
				p.conn = nil
				r.fail(ctx, i, err)
				continue
			}
			r.conns = append(r.conns, p.conn)
		}
		p.used++
		r.begin(i)
		if err := p.conn.open(s, target, r.cfg.fields(target, s.user)); err != nil {
			p.conn = nil
			r.fail(ctx, i, err)
		}
	}
}
