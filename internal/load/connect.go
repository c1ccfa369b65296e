package load

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// dialWorkers connect at the same time: enough that one slow accept does not hold up
// the ramp.
const dialWorkers = 32

// hopeless is how many streams may fail before any has opened until the rest is not
// tried: a wrong port needs no thousand tries.
const hopeless = 32

type readers interface {
	add(net.Conn, *stream) error
	close()
}

// connect opens the streams and waits until each that was tried has its answer. What
// is still asking then has failed, or was not tried if ctx has ended.
func (r *run) connect(ctx context.Context) {
	begin := time.Now()
	if r.cfg.HTTP2 {
		r.connectHTTP2(ctx, begin)
	} else {
		r.connectHTTP1(ctx, begin)
	}
	t := r.tally
	asked := func() (n int) {
		t.mu.Lock()
		defer t.mu.Unlock()
		for i := range r.streams {
			if r.streams[i].state == asking {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(r.cfg.Patience); asked() > 0 && time.Now().Before(deadline); {
		if !sleep(ctx, time.Millisecond) {
			break
		}
	}
	t.lock()
	defer t.unlock()
	for i := range r.streams {
		s := &r.streams[i]
		if s.state == asking && ctx.Err() != nil {
			s.state = untried
		}
		s.fail("no answer: timeout", "")
	}
}

// goOn waits until stream i is due, and reports whether it is to be tried.
func (r *run) goOn(ctx context.Context, begin time.Time, i int) bool {
	due := begin.Add(after(i, r.cfg.Ramp))
	for r.hopes() {
		wait := time.Until(due)
		if !sleep(ctx, min(wait, lookup)) {
			return false
		}
		if wait <= lookup {
			return r.hopes()
		}
	}
	return false
}

func (r *run) hopes() bool {
	t := r.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.opened > 0 || t.unopened < hopeless
}

// sleep reports whether ctx let it.
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
				if i >= len(r.streams) || !r.goOn(ctx, begin, i) {
					return
				}
				if err := r.ask(ctx, i); err != nil {
					r.fail(ctx, i, err)
				}
			}
		})
	}
	workers.Wait()
}

// fail is for a stream whose request could not be sent.
func (r *run) fail(ctx context.Context, i int, err error) {
	how := howEnded(err)
	for _, why := range []error{errNoHTTP1, errNoHTTP2, errNoCleartextHTTP2} {
		if errors.Is(err, why) {
			how = why.Error()
		}
	}
	r.tally.lock()
	defer r.tally.unlock()
	if ctx.Err() != nil {
		r.streams[i].state = untried
	}
	r.streams[i].fail(how, "")
}

// ask sends the request of stream i and hands the connection to the reader.
func (r *run) ask(ctx context.Context, i int) error {
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

// begin is when stream i is asked for.
func (r *run) begin(i int) {
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	r.streams[i].state, r.streams[i].asked = asking, r.tally.clock()
}

// dial connects stream i, or the connection that begins with it.
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
	// A reset at the end: else each stream would hold its port for a minute, and the
	// next run would find none.
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

// handshake makes a connection over TLS that carries the run's version of HTTP.
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
	none := err != nil && strings.Contains(err.Error(), "no application protocol") // the text of alert 120, which has no type
	switch {
	case r.cfg.HTTP2 && (none || err == nil && secure.ConnectionState().NegotiatedProtocol != "h2"):
		return nil, errNoHTTP2
	case none:
		return nil, errNoHTTP1
	}
	return secure, err
}

// connectHTTP2 opens streams one after the other: only what takes a round trip, a
// new connection, is slow, and there are few.
func (r *run) connectHTTP2(ctx context.Context, begin time.Time) {
	type place struct {
		conn  *http2Conn
		taken int
	}
	places := make([]place, len(r.cfg.Targets))
	for i := range r.streams {
		if !r.goOn(ctx, begin, i) {
			return
		}
		s, p := &r.streams[i], &places[i%len(places)]
		target := r.cfg.Targets[i%len(places)]
		if p.conn == nil || p.taken >= p.conn.limit {
			_, raw, err := r.dial(ctx, i)
			if err == nil {
				p.conn, err = newHTTP2(r.tally, raw)
				p.taken = 0
			}
			if err != nil {
				p.conn = nil
				r.fail(ctx, i, err)
				continue
			}
			r.conns = append(r.conns, p.conn)
		}
		p.taken++
		r.begin(i)
		if err := p.conn.open(s, target, r.cfg.fields(target, s.user)); err != nil {
			p.conn = nil
			r.fail(ctx, i, err)
		}
	}
}
