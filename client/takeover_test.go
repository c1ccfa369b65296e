package client_test

import (
	"bufio"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"usercast/internal/hubtest"
)

// A counter publishes numbers with timestamps until it is stopped.
type counter struct {
	stop chan struct{}
	wg   sync.WaitGroup
	n    atomic.Int64
}

func startCounter(t *testing.T, h *hub, channel string) *counter {
	t.Helper()
	conn, err := net.Dial("tcp", h.Redis.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{stop: make(chan struct{})}
	c.wg.Go(func() {
		defer conn.Close()
		replies := bufio.NewReader(conn)
		for tick := time.Tick(10 * time.Millisecond); ; <-tick {
			select {
			case <-c.stop:
				return
			default:
			}
			fmt.Fprintf(conn, "PUBLISH %s %d@%d\r\n", channel, c.n.Add(1), time.Now().UnixMilli())
			if reply, err := replies.ReadString('\n'); err != nil || reply != ":1\r\n" {
				t.Errorf("PUBLISH: %q, %v", reply, err)
				return
			}
		}
	})
	t.Cleanup(func() { c.end() })
	return c
}

// end stops the counter and returns the last number.
func (c *counter) end() int64 {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.wg.Wait()
	return c.n.Load()
}

func leaderIsClosed(t *testing.T, w world) { takeover(t, w, func(p tab) { p.Close() }, nil) }

// A stream begins with a ping that has an id, from which another tab resumes. This hub does not send
// further pings.
func leaderIsClosedEarly(t *testing.T, w world) {
	w.hub = startHub(t)
	s := startSite(t, w.hub)
	leader, follower := open(t, w, s, s.stream()), open(t, w, s, s.stream())
	leader.Close()
	w.hub.publish(s.channel("a"), "1")
	follower.want("received", "1")
	hubtest.Eventually(t, "the other tab has the stream", func() bool { return len(s.requests()) == 2 && w.hub.streams(t, s.user) == 1 })
	follower.Until("stream.state == 'open'")
	w.hub.publish(s.channel("a"), "2")
	follower.want("received", "1", "2")
	follower.want("gaps")
}

func leaderCrashes(t *testing.T, w world) { takeover(t, w, func(p tab) { p.Crash() }, nil) }

func leaderReloads(t *testing.T, w world) {
	takeover(t, w, func(p tab) { p.Run("location.reload()") }, nil)
}

func leaderFreezes(t *testing.T, w world) {
	takeover(t, w, func(p tab) { p.Freeze() }, func(p tab) { p.Thaw() })
}

// An unresponsive page cannot notify the others, so they must detect that it does not respond.
func leaderIsUnresponsive(t *testing.T, w world) {
	takeover(t, w, func(p tab) { p.Hang(3 * time.Second) }, func(tab) {})
}

// takeover opens three tabs and ends the one with the stream while messages arrive. The other tabs
// must receive each message once and in order, within one second plus three times the delay of a tab with a separate
// stream. That delay shows the load of the machine: a takeover takes several steps, each as late as one message. If wake is set, the ended tab must
// also receive all messages after it.
func takeover(t *testing.T, w world, end, wake func(leader tab)) {
	s := startSite(t, w.hub)
	leader := open(t, w, s, s.stream())
	others := []tab{open(t, w, s, s.stream()), open(t, w, s, s.stream())}
	if n := len(s.requests()); n != 1 || w.hub.streams(t, s.user) != 1 {
		t.Fatalf("three tabs opened %d streams", n)
	}
	apart := startSite(t, w.hub)
	apart.user = s.user
	control := open(t, w, apart, apart.stream())
	counter := startCounter(t, w.hub, s.channel("activity"))
	for _, p := range append(others, control) {
		p.goesOn()
		p.Run("late = 0")
	}
	leader.goesOn()
	end(leader)
	hubtest.Eventually(t, "another tab has the stream", func() bool { return len(s.requests()) >= 2 })
	if s.requests()[1].Get("last-event-id") == "" {
		t.Error("the stream was opened without the last id")
	}
	for _, p := range append(others, control) {
		p.goesOn()
	}
	late := max(others[0].late(), others[1].late())
	usual := control.late()
	t.Logf("the maximum delay was %v, and %v in a tab with a separate stream", late, usual)
	if late > time.Second+3*usual {
		t.Errorf("the maximum delay was %v, and %v in a tab with a separate stream", late, usual)
	}
	if wake != nil {
		wake(leader)
		leader.goesOn()
		others = append(others, leader)
	}
	last := counter.end()
	for _, p := range append(others, control) {
		p.wantUnbroken(last)
	}
	hubtest.Eventually(t, "there is one stream", func() bool { return w.hub.streams(t, s.user) == 2 }) // one for the tabs, one for the control
	// Two tabs that detect the end of the leader at the same time become leaders one after the other.
	if n := len(s.requests()); n > 3 {
		t.Errorf("the stream was opened %d times, want 2", n)
	}
}
