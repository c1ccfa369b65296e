//go:build unix

package faults

import (
	"bufio"
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

// numbered is a message of about size bytes that tells its number.
func numbered(i, size int) string { return fmt.Sprintf("%d %s", i, strings.Repeat("x", size)) }

func numberOf(e eventstream.Event) (int, error) {
	digits, _, _ := strings.Cut(e.Data, " ")
	return strconv.Atoi(digits)
}

// numbersFrom reads numbered messages from number n until the stream ends or is
// broken, or number last has come. It returns the number that would have been next;
// the error is of one that comes out of turn.
func numbersFrom(p *ssetest.Stream, n, last int) (next int, err error) {
	for n <= last {
		e, err := p.Next()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return n, fmt.Errorf("the stream neither goes on nor ends after %d", n-1)
			}
			return n, nil
		}
		if i, err := numberOf(e); err != nil || i != n {
			return n, fmt.Errorf("got %s %.20q, want message %d", e.Type, e.Data, n)
		}
		n++
	}
	return n, nil
}

// wantRest wants a page that comes back to get the messages n…last.
func wantRest(t *testing.T, h *hubtest.Hub, query, lastID string, n, last int) {
	t.Helper()
	p := h.Open(t, query, "Last-Event-ID: "+lastID)
	defer p.Close()
	if next, err := numbersFrom(p, n, last); err != nil || next <= last {
		t.Errorf("back at %d it gets up to %d of %d: %v", n, next-1, last, err)
	}
}

// readStream is a helper that opens a stream and writes a line for each message, its id and number;
// the first line has the opening id.
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

// A reader that has stalled is alive, and was the last to say so: it is slow, whatever
// has stalled it. What it got is the beginning of what was sent, and it may come back
// for the rest.
func TestStalledReaderIsSlow(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const messages, size = 40, 20_000 // more than the kernel's buffers take, less than the queue's bound
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
				t.Parallel() // each waits for timeouts
				server := redistest.Start(t)
				h := hubtest.Start(t, server, writer, "--write-timeout", timeout.String(), "--send-buffer", "4096")
				app := hubtest.NewPublisher(t, server.Addr())
				healthy := h.Open(t, "user=42")
				got := stall(t, h)
				app.Burst(t, messages, func(i int) (string, string) { return "user-42", numbered(i, size) })
				if next, err := numbersFrom(healthy, 0, messages-1); err != nil || next < messages {
					t.Fatalf("a healthy page gets up to %d of %d: %v", next-1, messages-1, err)
				}
				hubtest.Within(t, timeout+hubtest.Soon, "the stalled stream has ended", func() bool { return h.Hub().Stats().Clients == 1 })
				h.WantMetrics(t, map[string]float64{
					"usercast_disconnects_total" + hubtest.Reason("slow"): 1,
					"usercast_disconnects_total":                          1,
				})
				next, lastID := got()
				if next >= messages {
					t.Fatal("it did not stall")
				}
				wantRest(t, h, "user=42", lastID, next, messages-1)
			})
		}
	})
}

// rest reads all that a page has yet to get before its end.
func rest(t *testing.T, p *ssetest.Stream, messages int) (next int, lastID string) {
	t.Helper()
	next, err := numbersFrom(p, 0, messages-1)
	if err != nil {
		t.Error(err)
	}
	return next, p.LastID
}

// stopProcess opens a stream in another process and stops that.
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
				t.Fatalf("it got %q, want message %d: %v", line, next-1, err)
			}
			next++
		}
		return next - 1, lastID
	}
}

// A reader counts as taking something when the kernel can tell the hub so, and that
// tells of a window anew only when a good part of it is free. A byte now and then is
// therefore enough for as long as the kernel has room, and not afterwards.
func TestReaderOfOneByteAtATime(t *testing.T) {
	if testing.Short() {
		t.Skip("reads slowly")
	}
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const timeout = time.Second
		const pause = timeout / 10 // a byte a second at the default timeout
		read := func(t *testing.T, p *ssetest.Stream, more func(n int) bool) (text []byte) {
			t.Helper()
			var b [1]byte
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for more(len(text)) {
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
		t.Run("lives while the kernel has room", func(t *testing.T) {
			h, app, p := start(t)
			app.Publish(t, "user-42", "hello")
			want := "data: hello\nid: "
			text := read(t, p, func(n int) bool { return n < len(want)+len(p.LastID)+len("\n\n") })
			if got := string(text); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "\n\n") {
				t.Errorf("got %q, want %q", got, want)
			}
			h.WantMetrics(t, map[string]float64{"usercast_clients": 1, "usercast_disconnects_total": 0})
		})
		t.Run("is slow afterwards", func(t *testing.T) {
			const messages, size = 40, 1000
			h, app, p := start(t)
			app.Burst(t, messages, func(i int) (string, string) { return "user-42", numbered(i, size) })
			begun := time.Now()
			text := read(t, p, func(int) bool {
				if time.Since(begun) > hubtest.Patience {
					t.Fatal("it is not ended")
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

// The write timeout is for each part that a reader takes, not for a message: a large
// one may take longer on a thin line.
func TestReaderOnAThinLineLives(t *testing.T) {
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
		p.Source(bufio.NewReaderSize(thinLine{p.Conn, timeout / 20}, 16<<10))
		begun := time.Now()
		p.Want(t, large, "after it")
		if took := time.Since(begun); took < timeout {
			t.Errorf("it took %v, which proves nothing", took)
		}
		h.WantMetrics(t, map[string]float64{"usercast_clients": 1, "usercast_deliveries_total": 2, "usercast_disconnects_total": 0})
	})
}

// A thinLine pauses before each read.
type thinLine struct {
	io.Reader
	pause time.Duration
}

func (l thinLine) Read(b []byte) (int, error) {
	time.Sleep(l.pause)
	return l.Reader.Read(b)
}

// A browser may leave while the hub is in the middle of a write to it. Nothing of
// that frame, and of those behind it, was delivered.
func TestBrowserThatLeavesInMidWriteIsClosed(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const queued = 3
		server := redistest.Start(t)
		for name, leave := range map[string]func(*net.TCPConn) error{
			"closed":      (*net.TCPConn).Close, // a reset, as there is something unread
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

// Others feel nothing of readers that stall.
func TestFiftyStalledAmongFiveHundredDelayNoOther(t *testing.T) {
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		// In all more than the small buffers of a stalled page take, and less than the
		// kernel takes for a page whose turn to read does not come.
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
