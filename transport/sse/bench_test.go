package sse_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/sse"
)

// These are benchmarks of streams over loopback sockets, with the defaults of the program. The
// results include the reader, which runs in the same process and uses little time and memory.

const benchPayload = `{"kind":"comment","id":7,"text":"a message of a common size, as an app would send it"}`

func BenchmarkEncodeEntry(b *testing.B) {
	var first hub.Entry // with an id of a PubSub
	h := hub.NewPubSub(hub.Config{BroadcastUser: "*", Encode: func(dst []byte, e hub.Entry, _ bool) []byte { first = e; return dst }})
	defer h.Close()
	client, err := h.Register(hub.Options{User: "42", Consumer: idle{}})
	if err != nil {
		b.Fatal(err)
	}
	defer client.End(hub.ReasonClosed)
	for range 1234566 {
		h.Skip()
	}
	h.Publish(hub.User("42"), "activity", benchPayload)
	lines := first
	lines.Payload = strings.Repeat(benchPayload+"\n", 10)
	for _, bench := range []struct {
		name  string
		entry hub.Entry
		named bool
	}{
		{"OneLine", first, false},
		{"TenLines", lines, false},
		{"Named", first, true},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sse.EncodeEntry(nil, bench.entry, bench.named)
			}
		})
	}
}

// benchSite starts a hub behind an HTTP server, which stops when the benchmark ends.
func benchSite(b *testing.B, ping time.Duration) (h *hub.PubSub, address string) {
	b.Helper()
	h = hub.NewPubSub(hub.Config{Encode: sse.EncodeEntry, BroadcastUser: "*", MaxClientsPerUser: hub.NoLimit})
	handler := sse.New(sse.Config{Hub: h.Hub, Authenticate: auth.Insecure, PingInterval: ping})
	server, err := sse.NewServer(context.Background(), sse.ServerConfig{Address: "127.0.0.1:0", Streams: handler})
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve() }()
	b.Cleanup(func() {
		h.Refuse()
		h.Finish(hub.ReasonDrain, 0)
		handler.Wait()
		h.Close()
		server.Close()
		<-served
	})
	return h, server.Addr().String()
}

// A reader is the client end of a stream.
type reader struct {
	conn net.Conn
	in   *bufio.Reader
}

// dialReader opens a stream and reads its opening block.
func dialReader(b *testing.B, address string) *reader {
	b.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	r := &reader{conn, bufio.NewReader(conn)}
	if _, err := io.WriteString(conn, benchRequest); err != nil {
		b.Fatal(err)
	}
	r.block(b) // the head
	r.block(b)
	return r
}

const benchRequest = "GET /events?user=42 HTTP/1.1\r\nHost: hub.example\r\nAccept: text/event-stream\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en\r\nCache-Control: no-cache\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
	"Sec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n\r\n"

// block reads up to the next blank line.
func (r *reader) block(b *testing.B) {
	for {
		line, err := r.in.ReadSlice('\n')
		if err != nil {
			b.Fatal(err)
		}
		if len(line) <= len("\r\n") && (line[0] == '\r' || line[0] == '\n') {
			return
		}
	}
}

// BenchmarkDelivery measures one message at a time, from Publish until the client has read it.
func BenchmarkDelivery(b *testing.B) {
	h, address := benchSite(b, 0)
	r := dialReader(b, address)
	defer r.conn.Close()
	b.ReportAllocs()
	for b.Loop() {
		h.Publish(hub.User("42"), "activity", benchPayload)
		r.block(b)
	}
}

// BenchmarkDeliveryOf64Messages measures a burst of 64 messages for one user, which share writes.
func BenchmarkDeliveryOf64Messages(b *testing.B) {
	const messages = 64
	h, address := benchSite(b, 0)
	r := dialReader(b, address)
	defer r.conn.Close()
	b.ReportAllocs()
	for b.Loop() {
		for range messages {
			h.Publish(hub.User("42"), "activity", benchPayload)
		}
		for range messages {
			r.block(b)
		}
	}
}

// BenchmarkConnect measures connecting, the opening block and disconnecting. It ends when the hub has
// noticed the last disconnect.
func BenchmarkConnect(b *testing.B) {
	h, address := benchSite(b, 0)
	b.ReportAllocs()
	for b.Loop() {
		r := dialReader(b, address)
		r.conn.(*net.TCPConn).SetLinger(0) // a reset: thousands of ports in TIME_WAIT would be none left
		r.conn.Close()
	}
	for h.Stats().Clients > 0 {
		runtime.Gosched()
	}
}
