package load

import (
	"io"
	"net"
	"sync"
)

// connReaders reads each HTTP/1.1 stream in a separate goroutine. This works on all systems, and over TLS. An idle stream
// waits in a read of one byte. It borrows a buffer for the following bytes, so idle streams do not hold buffers.
type connReaders struct {
	tally   *tally
	buffers sync.Pool
	group   sync.WaitGroup

	// Guarded by mu.
	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil after close
}

func newConnReaders(t *tally) *connReaders {
	return &connReaders{
		tally:   t,
		buffers: sync.Pool{New: func() any { return new([32 << 10]byte) }},
		conns:   make(map[net.Conn]struct{}),
	}
}

// add starts to read a connection on which the request was written. It owns conn.
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
		// The bytes after the first one have almost always arrived already.
		var n int
		n, err = conn.Read(buf[1:])
		r.tally.lock()
		r.tally.now = r.tally.clock()
		r.tally.reads++
		r.tally.bytes += int64(1 + n)
		more = c.receive(buf[:1+n])
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
		s.end(reasonFor(err))
		r.tally.unlock()
	}
}

// close closes all connections and waits until their goroutines have ended.
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
