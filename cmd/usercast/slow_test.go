//go:build unix

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// dialSmall dials with a receive buffer of so many bytes, and of the kernel's choice
// when that is 0. The buffer is set before the peer is told of a window.
func dialSmall(addr string, receiveBuffer int) (net.Conn, error) {
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if receiveBuffer > 0 {
			if e := raw.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
			}); e != nil {
				return e
			}
		}
		return err
	}}
	return d.Dial("tcp", addr)
}

// openSmall opens a page with a small receive buffer.
func (h *liveHub) openSmall(t *testing.T, query string) *page {
	t.Helper()
	conn, err := dialSmall(h.PublicAddr(), 2048)
	if err != nil {
		t.Fatal(err)
	}
	p, err := openPageOn(conn, query)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// numbered is a message of about size bytes that tells its number.
func numbered(i, size int) string { return fmt.Sprintf("%d %s", i, strings.Repeat("x", size)) }

func numberOf(e event) (int, error) {
	digits, _, _ := strings.Cut(e.data, " ")
	return strconv.Atoi(digits)
}

// numbersFrom reads numbered messages from number n until the stream ends or is
// broken, or number last has come. It returns the number that would have been next;
// the error is of one that comes out of turn.
func (p *page) numbersFrom(n, last int) (next int, err error) {
	for n <= last {
		e, err := p.next()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return n, fmt.Errorf("the stream neither goes on nor ends after %d", n-1)
			}
			return n, nil
		}
		if i, err := numberOf(e); err != nil || i != n {
			return n, fmt.Errorf("got %s %.20q, want message %d", e.name, e.data, n)
		}
		n++
	}
	return n, nil
}

// wantRest wants a page that comes back to get the messages n…last.
func (h *liveHub) wantRest(t *testing.T, query, lastID string, n, last int) {
	t.Helper()
	p := h.openPage(t, query, "Last-Event-ID: "+lastID)
	defer p.close()
	if next, err := p.numbersFrom(n, last); err != nil || next <= last {
		t.Errorf("back at %d it gets up to %d of %d: %v", n, next-1, last, err)
	}
}

// readAndTell opens a stream and writes a line for each message, its id and number;
// the first line has the opening id.
func readAndTell(addr string) (code int) {
	p, err := openPageAt(addr, "user=42")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(p.lastID, -1)
	for e, err := p.next(); err == nil; e, err = p.next() {
		n, _ := numberOf(e)
		fmt.Println(e.id, n)
	}
	return 0
}

// A reader that has stalled is alive, and was the last to say so: it is slow, whatever
// has stalled it. What it got is the beginning of what was sent, and it may come back
// for the rest.
func TestStalledReaderIsSlow(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		t.Parallel()
		const messages, size = 40, 20_000 // more than the kernel's buffers take, less than the queue's bound
		const timeout = 2 * time.Second
		for name, stall := range map[string]func(*testing.T, *liveHub) (got func() (next int, lastID string)){
			"stopped process": stopProcess,
			"closed window": func(t *testing.T, h *liveHub) func() (int, string) {
				p := h.openSmall(t, "user=42")
				return func() (int, string) { return p.rest(t, messages) }
			},
			"HTTP2 window": func(t *testing.T, h *liveHub) func() (int, string) {
				protocols := new(http.Protocols)
				protocols.SetUnencryptedHTTP2(true)
				transport := &http.Transport{Protocols: protocols, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
				t.Cleanup(transport.CloseIdleConnections)
				p := openOver(t, transport, h.public("/events?user=42"))
				return func() (int, string) { return p.rest(t, messages) }
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // each waits for timeouts
				server := redistest.Start(t)
				h := startHub(t, server, writer, "--write-timeout", timeout.String(), "--send-buffer", "4096")
				app := newPublisher(t, server.Addr())
				healthy := h.openPage(t, "user=42")
				got := stall(t, h)
				app.burst(t, messages, func(i int) (string, string) { return "user-42", numbered(i, size) })
				if next, err := healthy.numbersFrom(0, messages-1); err != nil || next < messages {
					t.Fatalf("a healthy page gets up to %d of %d: %v", next-1, messages-1, err)
				}
				within(t, timeout+soon, "the stalled stream has ended", func() bool { return h.Hub().Stats().Clients == 1 })
				h.wantMetrics(t, map[string]float64{
					"usercast_disconnects_total" + reasonLabel("slow"): 1,
					"usercast_disconnects_total":                       1,
				})
				next, lastID := got()
				if next >= messages {
					t.Fatal("it did not stall")
				}
				h.wantRest(t, "user=42", lastID, next, messages-1)
			})
		}
	})
}

// rest reads all that a page has yet to get before its end.
func (p *page) rest(t *testing.T, messages int) (next int, lastID string) {
	t.Helper()
	next, err := p.numbersFrom(0, messages-1)
	if err != nil {
		t.Error(err)
	}
	return next, p.lastID
}

// stopProcess opens a stream in another process and stops that.
func stopProcess(t *testing.T, h *liveHub) (got func() (next int, lastID string)) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reader := exec.Command(self)
	reader.Env = append(cleanEnviron(), asReader+"="+h.PublicAddr())
	reader.Stderr = os.Stderr
	stdout, err := reader.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		reader.Process.Kill()
		reader.Wait()
	})
	lines := bufio.NewReader(stdout)
	told := func() (id string, n int, err error) {
		line, err := lines.ReadString('\n')
		if err != nil {
			return "", 0, err
		}
		_, err = fmt.Sscan(line, &id, &n)
		return id, n, err
	}
	lastID, _, err := told()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return func() (next int, _ string) {
		if err := reader.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		for ; ; next++ {
			id, n, err := told()
			if errors.Is(err, io.EOF) {
				return next, lastID
			}
			if err != nil || n != next {
				t.Fatalf("it got message %d, want %d: %v", n, next, err)
			}
			lastID = id
		}
	}
}

// A reader counts as taking something when the kernel can tell the hub so, and that
// tells of a window anew only when a good part of it is free. A byte now and then is
// therefore enough for as long as the kernel has room, and not afterwards.
func TestReaderOfOneByteAtATime(t *testing.T) {
	if testing.Short() {
		t.Skip("reads slowly")
	}
	writers(t, func(t *testing.T, writer string) {
		t.Parallel()
		const timeout = time.Second
		const pause = timeout / 10 // a byte a second at the default timeout
		read := func(t *testing.T, p *page, more func(n int) bool) (text []byte) {
			t.Helper()
			var b [1]byte
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for more(len(text)) {
				<-tick.C
				p.conn.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.ReadFull(p.body, b[:]); err != nil {
					t.Fatalf("after %d bytes: %v", len(text), err)
				}
				text = append(text, b[0])
			}
			return text
		}
		start := func(t *testing.T) (*liveHub, *publisher, *page) {
			t.Parallel()
			server := redistest.Start(t)
			h := startHub(t, server, writer, "--write-timeout", timeout.String(), "--send-buffer", "4096")
			p := h.openSmall(t, "user=42")
			p.body = bufio.NewReaderSize(oneByte{p.conn}, 16)
			return h, newPublisher(t, server.Addr()), p
		}
		t.Run("lives while the kernel has room", func(t *testing.T) {
			h, app, p := start(t)
			app.publish(t, "user-42", "hello")
			want := "data: hello\nid: "
			text := read(t, p, func(n int) bool { return n < len(want)+len(p.lastID)+len("\n\n") })
			if got := string(text); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "\n\n") {
				t.Errorf("got %q, want %q", got, want)
			}
			h.wantMetrics(t, map[string]float64{"usercast_clients": 1, "usercast_disconnects_total": 0})
		})
		t.Run("is slow afterwards", func(t *testing.T) {
			const messages, size = 40, 1000
			h, app, p := start(t)
			app.burst(t, messages, func(i int) (string, string) { return "user-42", numbered(i, size) })
			begun := time.Now()
			text := read(t, p, func(int) bool {
				if time.Since(begun) > patience {
					t.Fatal("it is not ended")
				}
				return h.Hub().Stats().Clients == 1
			})
			h.wantMetrics(t, map[string]float64{
				"usercast_disconnects_total" + reasonLabel("slow"): 1,
				"usercast_disconnects_total":                       1,
			})
			p.body = bufio.NewReader(io.MultiReader(strings.NewReader(string(text)), p.body))
			next, lastID := p.rest(t, messages)
			h.wantRest(t, "user=42", lastID, next, messages-1)
		})
	})
}

// A oneByte reader asks the kernel for no more than what it is asked for itself.
type oneByte struct{ io.Reader }

func (r oneByte) Read(b []byte) (int, error) { return r.Reader.Read(b[:1]) }

// The write timeout is for each part that a reader takes, not for a message: a large
// one may take longer on a thin line.
func TestReaderOnAThinLineLives(t *testing.T) {
	if testing.Short() {
		t.Skip("reads slowly")
	}
	writers(t, func(t *testing.T, writer string) {
		t.Parallel() // mostly waits
		const timeout = 2 * time.Second
		server := redistest.Start(t)
		h := startHub(t, server, writer, "--write-timeout", timeout.String(), "--send-buffer", "4096")
		conn, err := dialSmall(h.PublicAddr(), 16<<10)
		if err != nil {
			t.Fatal(err)
		}
		p, err := openPageOn(conn, "user=42")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.close)
		large := strings.Repeat("x", 512<<10)
		app := newPublisher(t, server.Addr())
		app.publish(t, "user-42", large)
		app.publish(t, "user-42", "after it")
		p.body = bufio.NewReaderSize(thinLine{p.conn, timeout / 20}, 16<<10)
		begun := time.Now()
		p.want(t, large, "after it")
		if took := time.Since(begun); took < timeout {
			t.Errorf("it took %v, which proves nothing", took)
		}
		h.wantMetrics(t, map[string]float64{"usercast_clients": 1, "usercast_deliveries_total": 2, "usercast_disconnects_total": 0})
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
	writers(t, func(t *testing.T, writer string) {
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
				h := startHub(t, server, writer, "--ping-interval", "10m", "--write-timeout", "10m", "--send-buffer", "4096")
				app := newPublisher(t, server.Addr())
				healthy, leaver := h.openPage(t, "user=42"), h.openSmall(t, "user=42")
				large := strings.Repeat("x", 1<<20)
				app.publish(t, "user-42", large)
				healthy.want(t, large)
				if _, err := leaver.body.ReadByte(); err != nil { // the write has begun
					t.Fatal(err)
				}
				for i := range queued {
					app.publish(t, "user-42", strconv.Itoa(i))
					healthy.want(t, strconv.Itoa(i))
				}
				if err := leave(leaver.conn.(*net.TCPConn)); err != nil {
					t.Fatal(err)
				}
				h.wantMetrics(t, map[string]float64{
					"usercast_clients": 1,
					"usercast_disconnects_total" + reasonLabel("closed"):      1,
					"usercast_disconnects_total":                              1,
					"usercast_frames_enqueued_total":                          2 * (1 + queued),
					"usercast_deliveries_total":                               1 + queued,
					"usercast_frames_discarded_total" + reasonLabel("closed"): 1 + queued,
					"usercast_frames_discarded_total":                         1 + queued,
					"usercast_frames_queued":                                  0,
				})
				app.publish(t, "user-42", "after")
				healthy.want(t, "after")
			})
		}
	})
}

// Others feel nothing of readers that stall.
func TestFiftyStalledAmongFiveHundredHarmNobody(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		// In all more than the small buffers of a stalled page take, and less than the
		// kernel takes for a page whose turn to read does not come.
		const pages, messages, size = 500, 60, 700
		const timeout = 2 * time.Second
		stalls := func(i int) bool { return i%10 == 0 }
		server := redistest.Start(t)
		h := startHub(t, server, writer, "--write-timeout", timeout.String(), "--send-buffer", "4096", "--log-level", "warn")
		app := newPublisher(t, server.Addr())
		var (
			mu       sync.Mutex
			healthy  []*page
			received = make(chan error, pages)
		)
		each(t, pages, func(i int) error {
			buffer := 0
			if stalls(i) {
				buffer = 2048
			}
			conn, err := dialSmall(h.PublicAddr(), buffer)
			if err != nil {
				return err
			}
			p, err := openPageOn(conn, fmt.Sprintf("user=%d", i))
			if err != nil {
				return err
			}
			t.Cleanup(p.close)
			if !stalls(i) {
				mu.Lock()
				defer mu.Unlock()
				healthy = append(healthy, p)
			}
			return nil
		})
		for _, p := range healthy {
			go func() {
				next, err := p.numbersFrom(0, messages-1)
				if err == nil && next < messages {
					err = fmt.Errorf("a healthy stream was ended after message %d", next-1)
				}
				received <- err
			}()
		}
		app.burst(t, messages, func(i int) (string, string) { return "user-*", numbered(i, size) })
		for range healthy {
			if err := <-received; err != nil {
				t.Error(err)
			}
		}
		within(t, timeout+soon, "the stalled streams have ended", func() bool { return h.Hub().Stats().Clients == len(healthy) })
		h.wantMetrics(t, map[string]float64{
			"usercast_disconnects_total" + reasonLabel("slow"): float64(pages - len(healthy)),
			"usercast_disconnects_total":                       float64(pages - len(healthy)),
		})
	})
}
