package load

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// An http2Conn carries many streams over one connection (RFC 9113): in cleartext with prior knowledge, or over TLS. It does
// not use http2.Transport, which needs a goroutine, a pipe and a buffer per stream.
type http2Conn struct {
	tally *tally
	conn  net.Conn
	limit int // maximum number of concurrent streams on the connection
	done  chan struct{}

	// Guarded by mu: writes, and the bytes to write.
	mu      sync.Mutex
	w       bytes.Buffer
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	next    uint32

	// Guarded by the tally's lock.
	streams map[uint32]*http2Stream
	closed  bool // by close

	consumed int // bytes received since the last window update; owned by read
}

type http2Stream struct {
	*stream
	consumed int
}

const (
	// Flow-control windows. They are so large that a client that reads immediately does not limit the hub.
	streamWindow = 1 << 20
	connWindow   = 1 << 30
	// writeTimeout is the timeout for a few bytes into an empty socket buffer.
	writeTimeout = 5 * time.Second
)

// newHTTP2 sends the preface and waits for the settings of the server. It owns conn.
func newHTTP2(t *tally, conn net.Conn) (*http2Conn, error) {
	c := &http2Conn{tally: t, conn: conn, done: make(chan struct{}), next: 1, streams: make(map[uint32]*http2Stream)}
	c.framer = http2.NewFramer(&c.w, conn)
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	c.w.WriteString(http2.ClientPreface)
	_ = c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
	)
	_ = c.framer.WriteWindowUpdate(0, connWindow)
	err := c.flush()
	if err == nil {
		_ = conn.SetReadDeadline(time.Now().Add(writeTimeout))
		err = c.settings()
	}
	if err != nil {
		_ = conn.Close()
		reason := reasonNoCleartextHTTP2
		if _, secure := conn.(*tls.Conn); secure {
			reason = reasonNoHTTP2
		}
		return nil, fmt.Errorf("%w: %w", reason, err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	go c.read()
	return c, nil
}

func (c *http2Conn) settings() error {
	f, err := c.framer.ReadFrame()
	if err != nil {
		return err
	}
	settings, ok := f.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		return errors.New("the first frame does not contain settings")
	}
	c.limit = 100 // the recommended minimum (RFC 9113, section 6.5.2)
	if n, ok := settings.Value(http2.SettingMaxConcurrentStreams); ok {
		c.limit = int(min(n, 1<<20))
	}
	_ = c.framer.WriteSettingsAck()
	return c.flush()
}

// flush writes all framed bytes. The caller holds mu.
func (c *http2Conn) flush() error {
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := c.conn.Write(c.w.Bytes())
	c.w.Reset()
	return err
}

// open requests a stream. The caller opens at most limit streams.
func (c *http2Conn) open(s *stream, target Target, header []field) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.next
	c.next += 2
	c.tally.lock()
	c.streams[id] = &http2Stream{stream: s}
	c.tally.unlock()
	c.block.Reset()
	write := func(name, value string) { _ = c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) }
	write(":method", http.MethodGet)
	write(":scheme", target.scheme())
	write(":authority", target.Host)
	write(":path", expand(target.path, s.user))
	for _, f := range header {
		write(f.lower, f.value)
	}
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndStream: true, EndHeaders: true})
	return c.flush()
}

// read processes frames until the connection ends.
func (c *http2Conn) read() {
	defer close(c.done)
	var err error
	for err == nil {
		var f http2.Frame
		if f, err = c.framer.ReadFrame(); err == nil {
			err = c.frame(f)
		} else if errors.As(err, new(http2.StreamError)) {
			err = nil
		}
	}
	_ = c.conn.Close()
	c.tally.lock()
	defer c.tally.unlock()
	for id, s := range c.streams {
		if !c.closed {
			s.end(reasonFor(err))
		}
		delete(c.streams, id)
	}
}

func (c *http2Conn) frame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.DataFrame:
		return c.data(f)
	case *http2.MetaHeadersFrame:
		c.headers(f)
	case *http2.RSTStreamFrame:
		c.ended(f.StreamID, Reason("stream reset: "+f.ErrCode.String()))
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.write(func() { _ = c.framer.WritePing(true, f.Data) })
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.write(func() { _ = c.framer.WriteSettingsAck() })
		}
	}
	return nil
}

func (c *http2Conn) write(frame func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	frame()
	return c.flush()
}

func (c *http2Conn) headers(f *http2.MetaHeadersFrame) {
	c.tally.lock()
	defer c.tally.unlock()
	s := c.streams[f.StreamID]
	if s == nil {
		return
	}
	c.tally.now = c.tally.clock()
	header := make(http.Header)
	for _, h := range f.RegularFields() {
		header.Add(h.Name, h.Value)
	}
	if s.state == requested {
		code, _ := strconv.Atoi(f.PseudoValue("status"))
		if isStream(code, header) {
			s.markOpen()
		} else {
			s.reject(code, header, nil)
		}
	}
	if f.StreamEnded() {
		s.end(reasonFor(io.EOF))
		delete(c.streams, f.StreamID)
	}
}

// data processes a frame. It updates a flow-control window after half of it is used.
func (c *http2Conn) data(f *http2.DataFrame) error {
	length := int(f.Length) // padding counts
	c.consumed += length
	refill, refillStream := 0, 0
	c.tally.lock()
	c.tally.now = c.tally.clock()
	c.tally.reads++
	c.tally.bytes += int64(len(f.Data()))
	s := c.streams[f.StreamID]
	if s != nil {
		if s.state == open {
			s.receive(f.Data())
		}
		if s.consumed += length; s.consumed > streamWindow/2 {
			refillStream, s.consumed = s.consumed, 0
		}
		if f.StreamEnded() {
			s.end(reasonFor(io.EOF))
			delete(c.streams, f.StreamID)
		}
	}
	c.tally.unlock()
	if c.consumed > connWindow/2 {
		refill, c.consumed = c.consumed, 0
	}
	if refill == 0 && refillStream == 0 {
		return nil
	}
	return c.write(func() {
		if refill > 0 {
			_ = c.framer.WriteWindowUpdate(0, uint32(refill))
		}
		if refillStream > 0 && !f.StreamEnded() {
			_ = c.framer.WriteWindowUpdate(f.StreamID, uint32(refillStream))
		}
	})
}

func (c *http2Conn) ended(id uint32, reason Reason) {
	c.tally.lock()
	defer c.tally.unlock()
	if s := c.streams[id]; s != nil {
		c.tally.now = c.tally.clock()
		s.end(reason)
		delete(c.streams, id)
	}
}

// close closes the connection and waits until read has returned.
func (c *http2Conn) close() {
	c.tally.lock()
	c.closed = true
	c.tally.unlock()
	_ = c.conn.Close()
	<-c.done
}
