//go:build unix

package faults

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"usercast/internal/eventstream"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// openSmall opens a page with a small receive buffer.
func openSmall(t *testing.T, h *hubtest.Hub, query string) *ssetest.Stream {
	t.Helper()
	conn, err := hubtest.DialSmall(h.PublicAddr(), 2048)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ssetest.OpenOn(conn, query)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// numbered returns a message of about size bytes that contains its number.
func numbered(i, size int) string { return fmt.Sprintf("%d %s", i, strings.Repeat("x", size)) }

func numberOf(e eventstream.Event) (int, error) {
	digits, _, _ := strings.Cut(e.Data, " ")
	return strconv.Atoi(digits)
}

// numbersFrom reads numbered messages from number n until the stream ends or fails, or number last has arrived. It
// returns the next expected number. It returns an error for a message out of order.
func numbersFrom(p *ssetest.Stream, n, last int) (next int, err error) {
	for n <= last {
		e, err := p.Next()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return n, fmt.Errorf("the stream neither continues nor ends after %d", n-1)
			}
			return n, nil
		}
		if i, err := numberOf(e); err != nil || i != n {
			return n, fmt.Errorf("received %s %.20q, want message %d", e.Type, e.Data, n)
		}
		n++
	}
	return n, nil
}

// wantRest checks that a page that reconnects receives the messages n to last.
func wantRest(t *testing.T, h *hubtest.Hub, query, lastID string, n, last int) {
	t.Helper()
	p := h.Open(t, query, "Last-Event-ID: "+lastID)
	defer p.Close()
	if next, err := numbersFrom(p, n, last); err != nil || next <= last {
		t.Errorf("after reconnecting at %d, received up to %d of %d: %v", n, next-1, last, err)
	}
}

// readStream is a helper process that opens a stream and writes one line per message with its ID and number.
// The first line has the ID of the opening block.
func readStream(args []string) error {
	p, err := ssetest.Open(args[0], "user=42")
	if err != nil {
		return err
	}
	fmt.Println(p.LastID, -1)
	for e, err := p.Next(); err == nil; e, err = p.Next() {
		n, _ := numberOf(e)
		fmt.Println(e.ID, n)
	}
	return nil
}

// A stalled reader is alive, because its kernel still acknowledges; its stream ends as slow, whatever has stalled it.
// It received the first messages, and can reconnect for the rest.
func TestStalledReaderIsSlow(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const messages, size = 40, 20_000 // more than the kernel's buffers hold, less than the queue's bound
		const timeout = 2 * time.Second
		for name, stall := range map[string]func(*testing.T, *hubtest.Hub) (got func() (next int, lastID string)){
			"stopped process": stopProcess,
			"closed window": func(t *testing.T, h *hubtest.Hub) func() (int, string) {
				p := openSmall(t, h, "user=42")
				return func() (int, string) { return rest(t, p, messages) }
			},
			"HTTP2 window": func(t *testing.T, h *hubtest.Hub) func() (int, string) {
				protocols := new(http.Protocols)
				protocols.SetUnencryptedHTTP2(true)
				transport := &http.Transport{Protocols: protocols, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
				t.Cleanup(transport.CloseIdleConnections)
				p := hubtest.OpenOver(t, transport, h.PublicURL("/events?user=42"))
				return func() (int, string) { return rest(t, p, messages) }
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // it mostly waits for timeouts
				server := redistest.Start(t)
				h := hubtest.Start(t, server, writer, "--write-timeout", timeout.String(), "--send-buffer", "4096")
				app := hubtest.NewPublisher(t, server.Addr())
				healthy := h.Open(t, "user=42")
				got := stall(t, h)
				app.Burst(t, messages, func(i int) (string, string) { return "user-42", numbered(i, size) })
				if next, err := numbersFrom(healthy, 0, messages-1); err != nil || next < messages {
					t.Fatalf("a healthy page receives up to %d of %d: %v", next-1, messages-1, err)
				}
				hubtest.Within(t, timeout+hubtest.Soon, "the stalled stream has ended", func() bool { return h.Hub().Stats().Clients == 1 })
				h.WantMetrics(t, map[string]float64{
					"usercast_disconnects_total" + hubtest.Reason("slow"): 1,
					"usercast_disconnects_total":                          1,
				})
				next, lastID := got()
				if next >= messages {
					t.Fatal("the reader did not stall")
				}
				wantRest(t, h, "user=42", lastID, next, messages-1)
			})
		}
	})
}

// rest reads all messages that are left before the end of the stream.
func rest(t *testing.T, p *ssetest.Stream, messages int) (next int, lastID string) {
	t.Helper()
	next, err := numbersFrom(p, 0, messages-1)
	if err != nil {
		t.Error(err)
	}
	return next, p.LastID
}

// stopProcess opens a stream in another process and stops that process.
func stopProcess(t *testing.T, h *hubtest.Hub) (got func() (next int, lastID string)) {
	reader := hubtest.StartHelper(t, "read", h.PublicAddr())
	lines := func() []string { return strings.Split(reader.Stdout.String(), "\n") }
	hubtest.Eventually(t, "the stream is open", func() bool { return len(lines()) > 1 })
	reader.Signal(syscall.SIGSTOP)
	return func() (next int, lastID string) {
		reader.Signal(syscall.SIGCONT)
		reader.Wait(t)
		for _, line := range lines() {
			if line == "" {
				break
			}
			var n int
			if _, err := fmt.Sscan(line, &lastID, &n); err != nil || n != next-1 {
				t.Fatalf("the reader received %q, want message %d: %v", line, next-1, err)
			}
			next++
		}
		return next - 1, lastID
	}
}

// The hub detects that a reader accepts data when the kernel reports it. The receiver's kernel announces a larger
// window only when a considerable part of it is free. Reading one byte at a time therefore suffices
// while the kernel's buffers have space, but not afterwards.
func TestReaderOfOneByteAtATime(t *testing.T) {
	if testing.Short() {
		t.Skip("reads slowly")
	}
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const timeout = time.Second
		const pause = timeout / 10 // one byte per second at the default timeout
		read := func(t *testing.T, p *ssetest.Stream, more func(text []byte) bool) (text []byte) {
			t.Helper()
			var b [1]byte
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for more(text) {
				<-tick.C
				p.Conn.SetReadDeadline(time.Now().Add(hubtest.Patience))
				if _, err := io.ReadFull(p.Conn, b[:]); err != nil {
					t.Fatalf("after %d bytes: %v", len(text), err)
				}
				text = append(text, b[0])
			}
			return text
		}
		start := func(t *testing.T) (*hubtest.Hub, *hubtest.Publisher, *ssetest.Stream) {
			t.Parallel()
			server := redistest.Start(t)
			h := hubtest.Start(t, server, writer, "--write-timeout", timeout.String(), "--send-buffer", "4096")
			p := openSmall(t, h, "user=42")
			return h, hubtest.NewPublisher(t, server.Addr()), p
		}
		t.Run("open while the kernel's buffers have space", func(t *testing.T) {
			h, app, p := start(t)
			app.Publish(t, "user-42", "hello")
			want := "data: hello\nid: "
			text := read(t, p, func(text []byte) bool { return !bytes.HasSuffix(text, []byte("\n\n")) })
			if got := string(text); !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			h.WantMetrics(t, map[string]float64{"usercast_clients": 1, "usercast_disconnects_total": 0})
		})
		t.Run("slow afterwards", func(t *testing.T) {
			const messages, size = 40, 1000
			h, app, p := start(t)
			app.Burst(t, messages, func(i int) (string, string) { return "user-42", numbered(i, size) })
			begun := time.Now()
			text := read(t, p, func([]byte) bool {
				if time.Since(begun) > hubtest.Patience {
					t.Fatal("the stream does not end")
				}
				return h.Hub().Stats().Clients == 1
			})
			h.WantMetrics(t, map[string]float64{
				"usercast_disconnects_total" + hubtest.Reason("slow"): 1,
				"usercast_disconnects_total":                          1,
			})
			p.Source(io.MultiReader(strings.NewReader(string(text)), p.Conn))
			next, lastID := rest(t, p, messages)
			wantRest(t, h, "user=42", lastID, next, messages-1)
		})
	})
}

// The write timeout applies to each part that a reader accepts, not to a whole message: a large message
// may take longer over a slow connection.
func TestSlowConnectionStaysOpen(t *testing.T) {
	if testing.Short() {
		t.Skip("reads slowly")
	}
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const timeout = 2 * time.Second
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--write-timeout", timeout.String(), "--send-buffer", "4096")
		conn, err := hubtest.DialSmall(h.PublicAddr(), 16<<10)
		if err != nil {
			t.Fatal(err)
		}
		p, err := ssetest.OpenOn(conn, "user=42")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		large := strings.Repeat("x", 512<<10)
		app := hubtest.NewPublisher(t, server.Addr())
		app.Publish(t, "user-42", large)
		app.Publish(t, "user-42", "after it")
		p.Source(bufio.NewReaderSize(slowConn{p.Conn, timeout / 20}, 16<<10))
		begun := time.Now()
		p.Want(t, large, "after it")
		if took := time.Since(begun); took < timeout {
			t.Errorf("the message took only %v, so the test proves nothing", took)
		}
		h.WantMetrics(t, map[string]float64{"usercast_clients": 1, "usercast_deliveries_total": 2, "usercast_disconnects_total": 0})
	})
}

// A slowConn pauses before each read.
type slowConn struct {
	io.Reader
	pause time.Duration
}

func (l slowConn) Read(b []byte) (int, error) {
	time.Sleep(l.pause)
	return l.Reader.Read(b)
}

// A browser may disconnect while the hub is writing to it. The interrupted frame and those queued after
// it count as not delivered.
func TestClientThatDisconnectsDuringAWriteIsClosed(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const queued = 3
		server := redistest.Start(t)
		for name, leave := range map[string]func(*net.TCPConn) error{
			"closed":      (*net.TCPConn).Close, // sends RST, because data is unread
			"half-closed": (*net.TCPConn).CloseWrite,
			"reset": func(c *net.TCPConn) error {
				c.SetLinger(0)
				return c.Close()
			},
		} {
			t.Run(name, func(t *testing.T) {
				h := hubtest.Start(t, server, writer, "--ping-interval", "10m", "--write-timeout", "10m", "--send-buffer", "4096")
				app := hubtest.NewPublisher(t, server.Addr())
				healthy, leaver := h.Open(t, "user=42"), openSmall(t, h, "user=42")
				large := strings.Repeat("x", 1<<20)
				app.Publish(t, "user-42", large)
				healthy.Want(t, large)
				if _, err := leaver.Conn.Read(make([]byte, 1)); err != nil { // the write has begun
					t.Fatal(err)
				}
				for i := range queued {
					app.Publish(t, "user-42", strconv.Itoa(i))
					healthy.Want(t, strconv.Itoa(i))
				}
				if err := leave(leaver.Conn.(*net.TCPConn)); err != nil {
					t.Fatal(err)
				}
				h.WantMetrics(t, map[string]float64{
					"usercast_clients": 1,
					"usercast_disconnects_total" + hubtest.Reason("closed"):      1,
					"usercast_disconnects_total":                                 1,
					"usercast_frames_enqueued_total":                             2 * (1 + queued),
					"usercast_deliveries_total":                                  1 + queued,
					"usercast_frames_discarded_total" + hubtest.Reason("closed"): 1 + queued,
					"usercast_frames_discarded_total":                            1 + queued,
					"usercast_frames_queued":                                     0,
				})
				app.Publish(t, "user-42", "after")
				healthy.Want(t, "after")
			})
		}
	})
}

// Stalled readers do not delay other streams.
func TestStalledReadersDoNotDelayOthers(t *testing.T) {
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		// In total more than the small buffers of a stalled page hold, and less than the
		// kernel buffers for a page that is not scheduled to read.
		const pages, messages, size = 500, 60, 700
		const timeout = 2 * time.Second
		stalls := func(i int) bool { return i%10 == 0 }
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--write-timeout", timeout.String(), "--send-buffer", "4096", "--log-level", "warn")
		app := hubtest.NewPublisher(t, server.Addr())
		var (
			mu       sync.Mutex
			healthy  []*ssetest.Stream
			received = make(chan error, pages)
		)
		hubtest.Each(t, pages, func(i int) error {
			buffer := 0
			if stalls(i) {
				buffer = 2048
			}
			conn, err := hubtest.DialSmall(h.PublicAddr(), buffer)
			if err != nil {
				return err
			}
			p, err := ssetest.OpenOn(conn, fmt.Sprintf("user=%d", i))
			if err != nil {
				return err
			}
			t.Cleanup(p.Close)
			if !stalls(i) {
				mu.Lock()
				defer mu.Unlock()
				healthy = append(healthy, p)
			}
			return nil
		})
		for _, p := range healthy {
			go func() {
				next, err := numbersFrom(p, 0, messages-1)
				if err == nil && next < messages {
					err = fmt.Errorf("a healthy stream was ended after message %d", next-1)
				}
				received <- err
			}()
		}
		app.Burst(t, messages, func(i int) (string, string) { return "user-*", numbered(i, size) })
		for range healthy {
			if err := <-received; err != nil {
				t.Error(err)
			}
		}
		hubtest.Within(t, timeout+hubtest.Soon, "the stalled streams have ended", func() bool { return h.Hub().Stats().Clients == len(healthy) })
		h.WantMetrics(t, map[string]float64{
			"usercast_disconnects_total" + hubtest.Reason("slow"): float64(pages - len(healthy)),
			"usercast_disconnects_total":                          float64(pages - len(healthy)),
		})
	})
}
