package stream

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"usercast/internal/certtest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// An HTTP/2 connection whose last stream has ended stays open for 5 s, so that a browser that reconnects needs no new
// handshake. A draining hub closes it immediately, because the browser must reconnect to another hub.
func TestHTTP2ConnectionOutlivesItsLastStream(t *testing.T) {
	t.Parallel()
	pair := certtest.New(t, "hub")
	for name, secure := range map[string]bool{"cleartext": false, "TLS": true} {
		for end, drains := range map[string]bool{"kicked": false, "draining": true} {
			t.Run(name+", "+end, func(t *testing.T) {
				t.Parallel() // it mostly waits
				server := redistest.Start(t)
				flags := []string{"--drain-delay", "1ms", "--drain", "8s"}
				if secure {
					dir := t.TempDir()
					cert, key := pair.Write(t, dir)
					flags = append(flags, "--tls-cert", cert, "--tls-key", key)
				}
				h := hubtest.Start(t, server, flags...)
				dial := func() net.Conn {
					if secure {
						conn, err := tls.Dial("tcp", h.PublicAddr(), &tls.Config{RootCAs: certtest.Pool(pair), NextProtos: []string{"h2"}})
						if err != nil {
							t.Fatal(err)
						}
						return conn
					}
					conn, err := net.Dial("tcp", h.PublicAddr())
					if err != nil {
						t.Fatal(err)
					}
					return conn
				}
				conn := newHTTP2Conn(t, dial())
				conn.get("/events?user=42")
				conn.get("/events?user=42")
				conn.until("the streams are open", func() bool { return h.Hub().Stats().Clients == 2 })
				if drains {
					// The streams end one after the other within 8 s, and meanwhile other streams are open on the hub.
					other := newHTTP2Conn(t, dial())
					for i := range 30 {
						other.get(fmt.Sprint("/events?user=other-", i))
					}
					conn.until("the other streams are open", func() bool { return h.Hub().Stats().Clients == 32 })
					h.Terminate() // SIGTERM
				} else {
					h.Hub().Disconnect("42")
				}
				conn.endOfStream()
				conn.endOfStream()
				ended := time.Now()
				conn.goAway()
				if took := time.Since(ended); drains && took > 2*time.Second || !drains && (took < 4*time.Second || took > 15*time.Second) {
					t.Errorf("the connection was closed %v after its last stream", took)
				}
			})
		}
	}
}

// An http2Conn is a client's HTTP/2 connection, frame by frame.
type http2Conn struct {
	t      *testing.T
	framer *http2.Framer
	next   uint32 // stream ID of the next request
}

func newHTTP2Conn(t *testing.T, conn net.Conn) *http2Conn {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(hubtest.Patience))
	io.WriteString(conn, http2.ClientPreface)
	c := &http2Conn{t: t, framer: http2.NewFramer(conn, conn), next: 1}
	c.framer.WriteSettings()
	return c
}

func (c *http2Conn) get(path string) {
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "h"}, {":path", path}, {"accept", "text/event-stream"}} {
		encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.next, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
	c.next += 2
}

func (c *http2Conn) until(what string, is func() bool) {
	c.t.Helper()
	hubtest.Within(c.t, hubtest.Soon, what, is)
}

// endOfStream reads up to the end of a stream.
func (c *http2Conn) endOfStream() {
	c.t.Helper()
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			c.t.Fatalf("%v before the end of a stream", err)
		}
		if data, ok := f.(*http2.DataFrame); ok && data.StreamEnded() {
			return
		}
		if _, ok := f.(*http2.GoAwayFrame); ok {
			c.t.Fatal("GOAWAY before the end of a stream")
		}
	}
}

// goAway reads up to the GOAWAY of the server.
func (c *http2Conn) goAway() {
	c.t.Helper()
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			c.t.Fatalf("%v, and no GOAWAY", err)
		}
		if _, ok := f.(*http2.GoAwayFrame); ok {
			return
		}
	}
}
