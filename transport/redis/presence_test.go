package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/internal/redistest"
	"usercast/transport/redis/internal/lease"
)

// A presenceHub is a hub with clients, and its Presence, whose times are shorter than in production. A lease is as long as five
// pauses between two extensions, and 3 s without sweeps are no outage, because this machine may stall.
type presenceHub struct {
	*Presence
	hub  *hub.PubSub
	log  *logbook
	stop func() // ends Run and waits for it
}

func startPresence(t *testing.T, url string, change func(*PresenceConfig)) *presenceHub {
	t.Helper()
	h := &presenceHub{hub: hub.NewPubSub(hub.Config{MaxClientsPerUser: hub.NoLimit}), log: &logbook{}}
	commands := NewCommands(parse(t, url, ServerOptions{}))
	cfg := PresenceConfig{
		Commands: commands, Hub: h.hub.Hub, Logger: slog.New(h.log),
		lease: 5 * time.Second, extendEvery: time.Second, sweepEvery: 1200 * time.Millisecond, gather: 10 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if h.Presence, err = NewPresence(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.Run(ctx)
	}()
	h.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		commands.Close()
	})
	t.Cleanup(func() {
		h.stop()
		h.hub.Close()
		if t.Failed() {
			t.Logf("log of a hub:\n%s", h.log)
		}
	})
	return h
}

// A reader of a tab does nothing.
type idleConsumer struct{}

func (idleConsumer) Wake()      {}
func (idleConsumer) Interrupt() {}

// open opens a tab of a user. close ends it.
func (h *presenceHub) open(t *testing.T, user string) (close func()) {
	t.Helper()
	c, err := h.hub.Register(hub.Options{User: user, Consumer: idleConsumer{}})
	if err != nil {
		t.Fatal(err)
	}
	return func() { c.End(hub.ReasonClosed) }
}

// A transitionLog records what is published on the channel of presence.
type transitionLog struct {
	mu    sync.Mutex
	lines []string          // "42 online", "42 offline"
	users map[string]string // by user: "online offline"
}

// recordTransitions subscribes at a server until the test ends, also after the server was down.
func recordTransitions(t *testing.T, addr string) *transitionLog {
	t.Helper()
	client := goredis.NewClient(&goredis.Options{Addr: addr, Protocol: 2, DisableIdentity: true, Username: "redistest", Password: "redistest"})
	sub := client.Subscribe(context.Background(), PresenceChannel("user-"))
	if _, err := sub.Receive(context.Background()); err != nil {
		t.Fatal(err)
	}
	l := &transitionLog{users: make(map[string]string)}
	ended := make(chan struct{})
	messages := sub.Channel()
	go func() {
		defer close(ended)
		for m := range messages {
			l.add(t, m.Payload)
		}
	}()
	t.Cleanup(func() {
		_ = sub.Close()
		_ = client.Close()
		<-ended
		if t.Failed() {
			t.Logf("transitions: %.2000q", l.all())
		}
	})
	return l
}

func (l *transitionLog) add(t *testing.T, payload string) {
	var m struct {
		User   *string
		Online *bool
	}
	if err := json.Unmarshal([]byte(payload), &m); err != nil || m.User == nil || m.Online == nil {
		t.Errorf("published %q: %v", payload, err)
		return
	}
	word := map[bool]string{true: "online", false: "offline"}[*m.Online]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, *m.User+" "+word)
	l.users[*m.User] = strings.TrimSpace(l.users[*m.User] + " " + word)
}

func (l *transitionLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// of returns the transitions of one user.
func (l *transitionLog) of(user string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.users[user]
}

func (l *transitionLog) await(t *testing.T, user, words string) {
	t.Helper()
	eventually(t, fmt.Sprintf("user %s was published as %q", user, words), func() bool { return l.of(user) == words })
}

// count returns how many users were online at the newest sweep, or -1 if this is not known.
func (h *presenceHub) count() int {
	n, ok := h.Users()
	if !ok {
		return -1
	}
	return n
}

func (h *presenceHub) awaitOnline(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	eventually(t, fmt.Sprintf("%q are online", want), func() bool {
		var err error
		got, err = h.Online(t.Context(), want)
		return err == nil && slices.Equal(got, want)
	})
}

var presenceKeys = lease.KeysOf("user-")

// awaitSweeps waits until users whose lease had ended before this call are removed: it opens and closes a tab of a new user, at
// a hub that works, and waits until that user is published as offline.
func (l *transitionLog) awaitSweeps(t *testing.T, h *presenceHub, user string) {
	t.Helper()
	h.open(t, user)()
	l.await(t, user, "online offline")
}

// shortLease is for tests of one hub, in which users may go offline if this machine stalls.
func shortLease(c *PresenceConfig) {
	c.lease, c.extendEvery, c.sweepEvery = time.Second, 300*time.Millisecond, 800*time.Millisecond
}

func TestTransitionsArePublishedOnceByThreeHubs(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	var hubs []*presenceHub
	for range 3 {
		hubs = append(hubs, startPresence(t, server.URL(), nil))
	}
	const users, tabs = 40, 6
	var closes []func()
	for user := range users {
		for tab := range tabs {
			closes = append(closes, hubs[(user+tab)%3].open(t, fmt.Sprint(user)))
		}
	}
	for user := range users {
		seen.await(t, fmt.Sprint(user), "online")
	}
	eventually(t, "each hub counts all", func() bool {
		return !slices.ContainsFunc(hubs, func(h *presenceHub) bool { return h.count() != users })
	})
	for _, end := range closes {
		end()
	}
	for user := range users {
		seen.await(t, fmt.Sprint(user), "online offline")
	}
	if n := len(seen.all()); n != 2*users {
		t.Errorf("%d transitions were published, want %d", n, 2*users)
	}
	if n := server.Do("exists", PresenceKey("user-")); n != int64(0) {
		t.Error("users are left in the set")
	}
}

func TestReloadIsNotATransition(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	a, b := startPresence(t, server.URL(), nil), startPresence(t, server.URL(), nil)
	end := a.open(t, "42")
	seen.await(t, "42", "online")
	a.open(t, "left")()
	reloads := 0
	eventually(t, "a lease has ended", func() bool {
		end()
		end = []*presenceHub{a, b}[reloads%2].open(t, "42")
		reloads++
		return seen.of("left") == "online offline"
	})
	if got := seen.of("42"); got != "online" {
		t.Errorf("user 42 was published as %q", got)
	}
	end()
	seen.await(t, "42", "online offline")
}

// A user who arrives several times within one script is published once.
func TestUserWhoArrivesTwiceInOneScript(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	h := startPresence(t, server.URL(), func(c *PresenceConfig) { c.gather, c.extendEvery = 500*time.Millisecond, time.Minute })
	h.open(t, "before")
	seen.await(t, "before", "online")
	for range 5 {
		h.open(t, "42")()
	}
	h.open(t, "42")
	h.open(t, "7")
	seen.await(t, "7", "online")
	if got := seen.of("42"); got != "online" {
		t.Errorf("user 42 was published as %q", got)
	}
}

func TestUserIDsWithAnyCharacters(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	h := startPresence(t, server.URL(), nil)
	users := []string{"a b", `q"uote\`, "sl/ash", `\/`, "ü€𝄞", "line\nbreak", "nul\x00", "\x7f", "<b>&", "0", "-1", "inf", "(1", "LIMIT", strings.Repeat("long", 5000)}
	for _, user := range users {
		end := h.open(t, user)
		defer end()
	}
	for _, user := range users {
		seen.await(t, user, "online")
	}
	h.awaitOnline(t, users...)
}

// The payload is as in the documentation, byte for byte, also for a user id with characters that need not be escaped.
func TestPayloadOfTransitions(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr(), Protocol: 2, DisableIdentity: true})
	defer client.Close()
	sub := client.Subscribe(t.Context(), "usercast:user-presence")
	defer sub.Close()
	if _, err := sub.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := startPresence(t, server.URL(), shortLease)
	end := h.open(t, "https://id.example/42é")
	for _, online := range []string{"true", "false"} {
		m, err := sub.ReceiveMessage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"user":"https://id.example/42é","online":` + online + `}`; m.Payload != want {
			t.Errorf("published %s, want %s", m.Payload, want)
		}
		end()
	}
}

// growingHub has users in all parts once they are there.
type growingHub struct{ users int }

func (*growingHub) NotifyArrivals(func())      {}
func (*growingHub) Arrivals() ([]string, bool) { return nil, false }
func (h *growingHub) Users(part int) (users []string) {
	for i := range h.users {
		users = append(users, fmt.Sprint(part, "-", i))
	}
	return users
}

// While a hub has few users, one script extends the leases of all. If many arrive afterwards, so that a pass takes as long as
// the pause between two passes, the last ones do not wait for twice that time.
func TestLeasesAreExtendedInTimeAfterManyArrivals(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := &growingHub{}
	cfg := PresenceConfig{Hub: h, Commands: NewCommands(parse(t, server.URL(), ServerOptions{})), extendEvery: time.Hour}
	defer cfg.Commands.Close()
	p, err := NewPresence(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := p.start()
	r.extendPart(t.Context())
	if r.part != 0 || time.Until(r.nextPart) < cfg.extendEvery/2 {
		t.Fatalf("the next part without users is %d, in %v", r.part, time.Until(r.nextPart))
	}
	h.users = lease.Batch
	for i := range hub.UserParts {
		if wait := time.Until(r.nextPart); r.part != i || wait > cfg.extendEvery*11/10 {
			t.Fatalf("part %d is next, after %v, want part %d in time", r.part, wait, i)
		}
		r.extendPart(t.Context())
	}
	if wait := time.Until(r.nextPart); wait <= 0 || wait > cfg.extendEvery*11/10 {
		t.Errorf("the next pass begins after %v", wait)
	}
}
