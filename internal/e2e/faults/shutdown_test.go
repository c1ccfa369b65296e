package faults

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"usercast/hub"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

func TestTerminationDrains(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const (
			streams = 60
			delay   = time.Second
			over    = time.Second
			slack   = 5 * time.Second // for a loaded machine
		)
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--drain-delay", delay.String(), "--drain", over.String(), "--retry", "2s")
		app := hubtest.NewPublisher(t, server.Addr())
		pages := h.OpenMany(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i+100) })
		health := hubtest.Dial(t, h.PublicAddr()) // of a load balancer, stays open

		start := time.Now()
		h.Terminate()
		hubtest.Within(t, delay/2, "/readyz is red", func() bool {
			return hubtest.Request(t, "GET", h.PublicURL("/readyz")).Status == 503 && strings.Contains(hubtest.Request(t, "GET", h.AdminURL("/readyz")).Body, `"why":"stopping"`)
		})
		if a := hubtest.Request(t, "GET", h.PublicURL("/livez")); a.Status != 200 {
			t.Errorf("/livez while draining: %d", a.Status)
		}
		h.WantRejection(t, "draining", 503)
		app.Publish(t, "user-*", "until the end") // streams still receive messages

		// New clients receive a response until the end.
		stop := make(chan struct{})
		answers := make(chan error, 1)
		go func() { answers <- requestStreams(h.PublicAddr(), stop) }()

		ends := make([]time.Duration, streams)
		retries := make(map[time.Duration]bool)
		var mu sync.Mutex
		hubtest.Each(t, streams, func(i int) error { return pages[i].Expect("message", "until the end") })
		var wg sync.WaitGroup
		for i, p := range pages {
			wg.Go(func() {
				err := p.Expect("bye", `{"reason":"draining"}`)
				ends[i] = time.Since(start)
				if err == nil {
					if e, end := p.Next(); !errors.Is(end, io.EOF) {
						err = fmt.Errorf("after bye: %+v, %w", e, end)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				retries[p.Retry] = true
				if err != nil || p.Retry < time.Second || p.Retry > 3*time.Second {
					t.Errorf("stream %d: %v, retry %v", i, err, p.Retry)
				}
			})
		}
		wg.Wait()
		close(stop)
		if err := <-answers; err != nil {
			t.Errorf("a new client during the drain: %v", err)
		}
		h.Wait(t)

		slices.Sort(ends)
		if ends[0] < delay {
			t.Errorf("a stream ended %v after the signal, during the drain delay", ends[0])
		}
		if last := ends[streams-1]; last > delay+over+slack {
			t.Errorf("the last stream ended after %v", last)
		}
		if spread := ends[streams*9/10] - ends[streams/10]; spread < over/2 {
			t.Errorf("most streams ended within %v, want them spread over %v", spread, over)
		}
		if len(retries) < streams/2 {
			t.Errorf("%d pages reconnect at only %d different times", streams, len(retries))
		}
		if s := h.Hub().Stats(); s.Disconnects[hub.ReasonDrain] != streams {
			t.Errorf("disconnects: %v, want %d of drain", s.Disconnects, streams)
		}
		if _, err := bufio.NewReader(health).ReadByte(); !errors.Is(err, io.EOF) {
			t.Errorf("an idle connection after the end: %v", err)
		}
		if _, err := net.Dial("tcp", h.PublicAddr()); err == nil {
			t.Error("the listener is still open after Run")
		}
	})
}

// requestStreams requests streams until stop is closed. Each request must receive busy.
func requestStreams(addr string, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		p, err := ssetest.Request(addr, "user=1")
		if err != nil {
			select {
			case <-stop: // the last streams have ended
				return nil
			case <-time.After(hubtest.Soon):
				return err
			}
		}
		err = p.Expect("busy", `{"reason":"draining"}`)
		p.Close()
		if err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// SIGINT is for developers: it skips the delay and ends all streams immediately.
func TestInterruptStopsImmediately(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--drain-delay", "1h", "--drain", "1h")
		pages := h.OpenMany(t, 50, func(i int) string { return fmt.Sprintf("user=%d", i) })
		h.Interrupt()
		for _, p := range pages {
			p.WantEvent(t, "bye", `{"reason":"draining"}`)
			p.WantEnd(t)
		}
		select {
		case <-h.Ended:
		case <-time.After(hubtest.Soon):
			t.Fatal("Run does not return")
		}
	})
}

// The hub stops before the end of the drain time if no stream is left.
func TestDrainEndsWhenNoStreamIsLeft(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--drain-delay", "0", "--drain", "1h")
		pages := h.OpenMany(t, 20, func(i int) string { return fmt.Sprintf("user=%d", i) })
		h.Terminate()
		hubtest.Eventually(t, "the hub drains", func() bool { return len(h.Log.Lines("msg=stopping")) == 1 })
		for _, p := range pages {
			p.Close() // the browsers disconnect
		}
		select {
		case <-h.Ended:
		case <-time.After(hubtest.Soon):
			t.Fatal("Run does not return although no stream is left")
		}
	})
}

// Queued messages are written before bye.
func TestByeIsSentAfterAllMessages(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer)
		app := hubtest.NewPublisher(t, server.Addr())
		pages := h.OpenMany(t, 10, func(int) string { return "user=42" })
		app.Burst(t, 500, func(i int) (string, string) { return "user-42", fmt.Sprint(i) })
		hubtest.Eventually(t, "the hub has received all messages", func() bool { return h.FeedStats()[0].Received == 500 })
		h.Interrupt()
		for _, p := range pages {
			if err := p.ExpectNumbers(500); err != nil {
				t.Fatal(err)
			}
			p.WantEvent(t, "bye", `{"reason":"draining"}`)
			p.WantEnd(t)
		}
	})
}

// Invariant 11, with every kind of connection.
func TestRunReleasesAllResources(t *testing.T) {
	for _, kind := range hubtest.Writers { // not in parallel: it counts goroutines and descriptors
		t.Run(kind, func(t *testing.T) { checkRunReleasesAllResources(t, "--writer="+kind) })
	}
}

func checkRunReleasesAllResources(t *testing.T, writer string) {
	server := redistest.Start(t)
	hubtest.Client.CloseIdleConnections()
	running := goleak.IgnoreCurrent()
	descriptors := openDescriptors(t)

	h := hubtest.Start(t, server, writer, "--write-timeout", "1s", "--send-buffer", "4096")
	app := hubtest.NewPublisher(t, server.Addr())
	pages := h.OpenMany(t, 20, func(int) string { return "user=42" })
	var raw []net.Conn
	for _, addr := range []string{h.PublicAddr(), h.AdminAddr()} {
		for _, begin := range []string{
			"",                                 // connected, sends nothing
			"GET /events?user=42 HTTP/1.1\r\n", // an incomplete request
			"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",                       // kept alive
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", // HTTP/2, idle
		} {
			conn := hubtest.Dial(t, addr)
			io.WriteString(conn, begin)
			raw = append(raw, conn)
		}
	}
	large := strings.Repeat("x", 100_000)
	for range 5 { // not read, so writes block
		app.Publish(t, "user-42", large)
	}
	server.Kill() // the feed waits between two attempts
	hubtest.Eventually(t, "the hub has detected that Redis is down", func() bool { return !h.FeedStats()[0].Connected })
	h.Interrupt()
	h.Wait(t)
	for _, p := range pages {
		p.Close()
	}
	for _, c := range append(raw, app.Conn) {
		c.Close()
	}

	if err := goleak.Find(running); err != nil {
		t.Error(err)
	}
	hubtest.Eventually(t, "the connections are closed", func() bool { return openDescriptors(t) <= descriptors })
	if n := h.Hub().Stats().Clients; n != 0 {
		t.Errorf("%d clients are left", n)
	}
}

// openDescriptors returns the number of open file descriptors of the process, or 0 if
// it cannot be determined.
func openDescriptors(t *testing.T) int {
	t.Helper()
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		return 0
	}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
