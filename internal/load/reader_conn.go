package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
)

// connReaders reads each HTTP/1.1 stream from a goroutine of its own: the way that
// works everywhere, and over TLS. A stream waits in a read of one byte and borrows a buffer for
// the rest, so that an idle one holds none.
type connReaders struct {
	tally   *tally
	buffers sync.Pool
	group   sync.WaitGroup

	// Guarded by mu.
	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil: closed
}

func newConnReaders(t *tally) *connReaders {
	return &connReaders{
		tally:   t,
		buffers: sync.Pool{New: func() any { return new([32 << 10]byte) }},
		conns:   make(map[net.Conn]struct{}),
	}
}

// add takes over a connection on which the request was written.
func (r *connReaders) add(conn net.Conn, s *stream) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil {
		_ = conn.Close()
		return net.ErrClosed
	}
	r.conns[conn] = struct{}{}
	r.group.Go(func() { r.read(conn, s) })
	return nil
}

func (r *connReaders) read(conn net.Conn, s *stream) {
	c := &http1{stream: s}
	first := make([]byte, 1)
	more := true
	var err error
	for more && err == nil {
		if _, err = io.ReadFull(conn, first); err != nil {
			break
		}
		buf := r.buffers.Get().(*[32 << 10]byte)
		buf[0] = first[0]
		// What comes after one byte is all but always there already.
		var n int
		n, err = conn.Read(buf[1:])
		r.tally.lock()
		r.tally.now = r.tally.clock()
		r.tally.reads++
		r.tally.bytes += int64(1 + n)
		more = c.take(buf[:1+n])
		r.tally.unlock()
		r.buffers.Put(buf)
	}
	if err == nil {
		err = io.EOF
	}
	r.mu.Lock()
	closed := r.conns == nil
	delete(r.conns, conn)
	r.mu.Unlock()
	_ = conn.Close()
	if !closed {
		r.tally.lock()
		s.end(howEnded(err))
		r.tally.unlock()
	}
}

// close closes all connections.
func (r *connReaders) close() {
	r.mu.Lock()
	conns := r.conns
	r.conns = nil
	for conn := range conns {
		_ = conn.Close()
	}
	r.mu.Unlock()
	r.group.Wait()
}

// howEnded is an end in a word or two.
func howEnded(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "closed by the hub"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no local port is left"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "no descriptor is left"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "certificate signed by an unknown authority"
	case errors.As(err, new(x509.HostnameError)):
		return "certificate for another name"
	case errors.As(err, new(x509.CertificateInvalidError)):
		return "certificate not valid"
	case errors.As(err, new(tls.RecordHeaderError)):
		return "no TLS there"
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "remote error" {
		return "TLS alert: " + strings.TrimPrefix(op.Err.Error(), "tls: ")
	}
	return "connection failed"
}
