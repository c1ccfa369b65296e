package hub_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
)

func TestInvariant14QueueIsBoundedInBytes(t *testing.T) {
	h := newPubSub(t, hub.Config{QueueBytes: 10})
	l := listen(t, h, hub.Options{User: "42"})
	h.Publish(hub.User("42"), "", "12345")
	h.Publish(hub.User("42"), "", "67890")
	wantReason(t, l, 0)
	h.Publish(hub.User("42"), "", "x")
	wantReason(t, l, hub.ReasonSlow)
	wantFrames(t, l)
}

// Taken frames do not count towards the bound of the queue: another burst may arrive while the previous one is
// written.
func TestQueueIsFreeAgainOnceTaken(t *testing.T) {
	h := newPubSub(t, hub.Config{QueueFrames: 2, QueueBytes: 10})
	l := listen(t, h, hub.Options{User: "42"})
	h.Publish(hub.User("42"), "", "12345")
	h.Publish(hub.User("42"), "", "67890")
	frames, _ := l.Take(nil)
	h.Publish(hub.User("42"), "", "12345")
	h.Publish(hub.User("42"), "", "67890")
	wantReason(t, l, 0)
	l.Settle(frames, len(frames))
	wantFrames(t, l, "12345", "67890")
}

func TestFrameLargerThanTheBoundIsAdmittedAlone(t *testing.T) {
	h := newPubSub(t, hub.Config{QueueBytes: 10})
	large := strings.Repeat("x", 100)
	alone := listen(t, h, hub.Options{User: "42"})
	if n := h.Publish(hub.User("42"), "", large); n != 1 {
		t.Fatalf("reached %d clients", n)
	}
	wantReason(t, alone, 0)
	wantFrames(t, alone, large)

	h.Publish(hub.User("42"), "", "small")
	h.Publish(hub.User("42"), "", large)
	wantReason(t, alone, hub.ReasonSlow)
}

func TestNoLimit(t *testing.T) {
	h := newPubSub(t, hub.Config{})
	for range 100 {
		l := listen(t, h, hub.Options{User: "42"})
		defer wantReason(t, l, 0)
	}
	for range 3000 {
		h.Publish(hub.User("42"), "", strings.Repeat("x", 1000))
	}
	if s := h.Stats(); s.FramesQueued != 300_000 || s.QueueBytes != 3_000_000 {
		t.Errorf("%d frames of %d bytes queued", s.FramesQueued, s.QueueBytes)
	}
}

func TestInvariant14AllQueuesAreBoundedInBytes(t *testing.T) {
	synctest.Test(t, testFullestQueues)
}

func testFullestQueues(t *testing.T) {
	h := newPubSub(t, hub.Config{QueueTotalBytes: 100})
	fill := func(user string, bytes int) *listener {
		l := listen(t, h, hub.Options{User: user})
		h.Publish(hub.User(user), "", strings.Repeat("x", bytes))
		return l
	}
	small, large, larger := fill("small", 10), fill("large", 40), fill("larger", 45)
	idle := listen(t, h, hub.Options{User: "idle"})

	h.Publish(hub.User("small"), "", "12345") // 100: not over the limit
	for _, l := range []*listener{small, large, larger} {
		wantReason(t, l, 0)
	}
	h.Publish(hub.User("small"), "", "6") // 101: ending the client with the fullest queue is enough
	wantReason(t, larger, hub.ReasonSlow)
	wantReason(t, large, 0)
	wantReason(t, small, 0)
	wantReason(t, idle, 0)
	if s := h.Stats(); s.QueueBytes != 56 || s.FramesDiscarded[hub.ReasonSlow] != 1 {
		t.Errorf("%d bytes queued, %d frames discarded; want 56, 1", s.QueueBytes, s.FramesDiscarded[hub.ReasonSlow])
	}

	h.Publish(hub.User("small"), "", strings.Repeat("x", 45)) // over the limit again, but the ended client may still release memory
	wantReason(t, small, 0)
	time.Sleep(time.Second)
	h.Publish(hub.User("small"), "", strings.Repeat("x", 15)) // either two clients must end, or the one with 76 bytes
	wantReason(t, small, hub.ReasonSlow)
	wantReason(t, large, 0)
}

// Frames that are being written count towards the total, because they are in memory until the write ends.
func TestTotalCountsWhatIsInFlight(t *testing.T) {
	h := newPubSub(t, hub.Config{QueueTotalBytes: 100})
	l := listen(t, h, hub.Options{User: "42"})
	h.Publish(hub.User("42"), "", strings.Repeat("x", 80))
	frames, _ := l.Take(nil)
	h.Publish(hub.User("42"), "", strings.Repeat("x", 30))
	wantReason(t, l, hub.ReasonSlow)
	if l.interrupts.Load() != 1 {
		t.Error("the write was not interrupted")
	}
	if got := h.Stats().QueueBytes; got != 80 {
		t.Errorf("%d bytes held while the write lasts, want 80", got)
	}
	l.Settle(frames, 0)
	if got := h.Stats().QueueBytes; got != 0 {
		t.Errorf("%d bytes after its last write", got)
	}
}

// A client that ends with Finish still holds memory. Ending others, which hold none, would not release it.
func TestIdleClientsAreNotShed(t *testing.T) {
	h := newPubSub(t, hub.Config{QueueTotalBytes: 10})
	leaving := register(t, h, hub.Options{User: "leaving"})
	h.Publish(hub.User("leaving"), "", "12345678")
	leaving.Finish(hub.ReasonKicked)

	idle, hit := listen(t, h, hub.Options{User: "idle"}), listen(t, h, hub.Options{User: "hit"})
	h.Publish(hub.User("hit"), "", "xyz")
	wantReason(t, idle, 0)
	wantReason(t, hit, hub.ReasonSlow) // the only remaining client that holds memory
	wantFrames(t, leaving, "12345678")
}

func TestRegisterRefuses(t *testing.T) {
	refuse := func(h *hub.PubSub, user string, want error) {
		t.Helper()
		c, err := h.Register(hub.Options{User: user, Consumer: new(listener)})
		if !errors.Is(err, want) || (want != nil) != (c == nil) {
			t.Errorf("Register returns %v, want %v", err, want)
		}
	}
	h := newPubSub(t, hub.Config{MaxClients: 3, MaxClientsPerUser: 2})
	first := listen(t, h, hub.Options{User: "1"})
	refuse(h, "1", nil)
	refuse(h, "1", hub.ErrUserLimit)
	refuse(h, "2", nil)
	refuse(h, "3", hub.ErrFull)
	first.End(hub.ReasonClosed)
	refuse(h, "1", nil) // below the limit again
	refuse(h, "1", hub.ErrFull)
	h.Refuse()
	refuse(h, "4", hub.ErrDraining)
	if s := h.Stats(); s.Clients != 3 || s.Users != 2 || s.Connects != 4 {
		t.Errorf("clients %d, users %d, connects %d; want 3, 2, 4", s.Clients, s.Users, s.Connects)
	}
}

// User and topics may be substrings of a large request. If they were not copied, the whole request would stay in
// memory as long as the stream.
func TestClientDoesNotPinTheRequest(t *testing.T) {
	const size, streams = 1 << 20, 50
	h := newPubSub(t, hub.Config{})
	before := heap()
	for i := range streams {
		request := fmt.Sprintf("%03d%s", i, strings.Repeat("x", size))
		listen(t, h, hub.Options{
			User: request[:3], Groups: []string{request[:4], request[:5]}, Topics: []string{request[2:4], request[4:5]}, Resume: request[5:10],
		}).drain()
	}
	if grown := heap() - before; grown > size*streams/10 {
		t.Errorf("%d streams hold %d KiB", streams, grown>>10)
	}
	if s := h.Stats(); s.Clients != streams {
		t.Errorf("%d clients", s.Clients)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The bound is on memory: a large frame that all clients share counts once, and does not make any client slow.
func TestSharedFrameCountsOnce(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*", QueueTotalBytes: 1000})
	var clients []*listener
	for range 100 {
		clients = append(clients, listen(t, h, hub.Options{User: "42"}))
	}
	if n := h.Publish(hub.User("*"), "", strings.Repeat("x", 900)); n != 100 {
		t.Fatalf("%d clients received it", n)
	}
	if s := h.Stats(); s.Clients != 100 || s.QueueBytes != 900 {
		t.Errorf("%d clients left, %d bytes held; want 100 and 900", s.Clients, s.QueueBytes)
	}
	for _, c := range clients {
		frames, _ := c.Take(nil)
		c.Settle(frames, len(frames))
	}
	if s := h.Stats(); s.QueueBytes != 0 {
		t.Errorf("%d bytes held after all have written it", s.QueueBytes)
	}
}
