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

// A counter publishes numbers, with the time of each, until it is stopped.
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

// end returns the last number.
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

// A stream begins with a ping that has a position, from which another tab continues. This hub sends no
// further ping.
func leaderIsClosedEarly(t *testing.T, w world) {
	w.hub = startHub(t)
	s := startSite(t, w.hub)
	leader, follower := open(t, w, s, s.stream()), open(t, w, s, s.stream())
	leader.Close()
	w.hub.publish(s.channel("a"), "1")
	follower.want("heard", "1")
	hubtest.Eventually(t, "the other tab has the stream", func() bool { return len(s.asked()) == 2 && w.hub.streams(t, s.user) == 1 })
	follower.Until("stream.state == 'open'")
	w.hub.publish(s.channel("a"), "2")
	follower.want("heard", "1", "2")
	follower.want("gaps")
}

func leaderCrashes(t *testing.T, w world) { takeover(t, w, func(p tab) { p.Crash() }, nil) }

func leaderReloads(t *testing.T, w world) {
	takeover(t, w, func(p tab) { p.Run("location.reload()") }, nil)
}

func leaderFreezes(t *testing.T, w world) {
	takeover(t, w, func(p tab) { p.Freeze() }, func(p tab) { p.Thaw() })
}

// A page that hangs cannot say so: the others have to find out that it does not answer.
func leaderHangs(t *testing.T, w world) {
	takeover(t, w, func(p tab) { p.Hang(3 * time.Second) }, func(tab) {})
}

// takeover opens three tabs, ends the one with the stream while messages keep coming, and
// wants the others to have each message once, in order, and none of them more than a
// second later than a tab with a stream of its own, which is as late as the machine is
// busy. The one that ended does so too when it is woken.
func takeover(t *testing.T, w world, end, wake func(leader tab)) {
	s := startSite(t, w.hub)
	leader := open(t, w, s, s.stream())
	others := []tab{open(t, w, s, s.stream()), open(t, w, s, s.stream())}
	if n := len(s.asked()); n != 1 || w.hub.streams(t, s.user) != 1 {
		t.Fatalf("three tabs asked for %d streams", n)
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
	hubtest.Eventually(t, "another tab has the stream", func() bool { return len(s.asked()) >= 2 })
	if s.asked()[1].Get("last-event-id") == "" {
		t.Error("the last id was not carried over")
	}
	for _, p := range append(others, control) {
		p.goesOn()
	}
	late := max(others[0].late(), others[1].late())
	usual := control.late()
	t.Logf("the latest message was %v late, and %v in a tab of its own", late, usual)
	if late-usual > time.Second {
		t.Errorf("the latest message was %v late, and %v in a tab of its own", late, usual)
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
	hubtest.Eventually(t, "there is one stream", func() bool { return w.hub.streams(t, s.user) == 2 }) // and the one apart
	// Two tabs that miss the leader at the same moment are one after the other.
	if n := len(s.asked()); n > 3 {
		t.Errorf("the stream was opened %d times, want 2", n)
	}
}
