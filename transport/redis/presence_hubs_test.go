package redis

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/redistest"
)

// A hub that dies does not clean up. Its users go offline, except those who have a tab at another hub.
func TestUsersOfAHubThatDies(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	a, b := startPresence(t, server.URL(), nil), startPresence(t, server.URL(), nil)
	for i := range 1200 { // more than fit into two scripts
		a.open(t, fmt.Sprint("a", i))
	}
	a.open(t, "both")
	b.open(t, "both")
	seen.await(t, "both", "online")
	eventually(t, "all users are online", func() bool { return len(seen.all()) == 1201 })
	a.stop()
	eventually(t, "all users of the hub are offline", func() bool { return len(seen.all()) == 2401 })
	for i := range 1200 {
		seen.await(t, fmt.Sprint("a", i), "online offline")
	}
	if got := seen.of("both"); got != "online" {
		t.Errorf("the user with a tab at the other hub was published as %q", got)
	}
}

// A frozenHub does not return its users while it is frozen, so that its Presence stops.
type frozenHub struct {
	*hub.Hub
	frozen atomic.Pointer[chan struct{}]
}

func (h *frozenHub) Users(part int) []string {
	if frozen := h.frozen.Load(); frozen != nil {
		<-*frozen
	}
	return h.Hub.Users(part)
}

func TestUsersOfAHubThatIsFrozen(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	frozen := &frozenHub{}
	a := startPresence(t, server.URL(), func(c *PresenceConfig) {
		frozen.Hub = c.Hub.(*hub.Hub)
		c.Hub = frozen
	})
	b := startPresence(t, server.URL(), nil)
	a.open(t, "42")
	a.open(t, "both")
	b.open(t, "both")
	seen.await(t, "42", "online")
	thaw := make(chan struct{})
	frozen.frozen.Store(&thaw)
	seen.await(t, "42", "online offline")
	frozen.frozen.Store(nil)
	close(thaw)
	seen.await(t, "42", "online offline online")
	if got := seen.of("both"); got != "online" {
		t.Errorf("the user with a tab at the other hub was published as %q", got)
	}
}

// A hub that is cut off from Redis, while others work, is like one that dies. Its users come online when it is back.
func TestUsersOfAHubThatIsCutOff(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	relay := redistest.StartRelay(t, server.Addr())
	a, b := startPresence(t, relay.URL(), nil), startPresence(t, server.URL(), nil)
	a.open(t, "42")
	b.open(t, "7")
	seen.await(t, "42", "online")
	relay.SetTarget("127.0.0.1:1") // refuses connections
	relay.Disconnect()
	seen.await(t, "42", "online offline")
	a.open(t, "late")
	relay.SetTarget(server.Addr())
	seen.await(t, "42", "online offline online")
	seen.await(t, "late", "online")
	if got := seen.of("7"); got != "online" {
		t.Errorf("the user of the other hub was published as %q", got)
	}
	a.log.once(t, "WARN presence update failed, retrying")
}

// The pages of a hub that drains reconnect to another hub: no transition, and no lease is given up.
func TestUsersOfAHubThatDrains(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	a, b := startPresence(t, server.URL(), nil), startPresence(t, server.URL(), nil)
	for i := range 50 {
		user := fmt.Sprint("moves", i)
		end := a.open(t, user)
		seen.await(t, user, "online")
		defer func() {
			if got := seen.of(user); got != "online" {
				t.Errorf("user %s was published as %q", user, got)
			}
		}()
		time.AfterFunc(10*time.Millisecond, func() {
			end()
			b.open(t, user)
		})
	}
	a.open(t, "leaves")
	seen.await(t, "leaves", "online")
	eventually(t, "all have moved", func() bool { return b.hub.Stats().Clients == 50 })
	a.stop()
	seen.await(t, "leaves", "online offline")
}

// The only hub is cut off from Redis for longer than a lease. Online and Count still return its users.
func TestUsersOfTheOnlyHubThatIsCutOff(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	relay := redistest.StartRelay(t, server.Addr())
	h := startPresence(t, relay.URL(), nil)
	h.open(t, "42")
	h.open(t, "7")
	seen.await(t, "42", "online")
	h.awaitOnline(t, "42", "7")
	commands := NewCommands(parse(t, server.URL(), ServerOptions{}))
	t.Cleanup(commands.Close)
	do := (&Presence{commands: commands, set: h.set}).do(t.Context())
	check := func() {
		t.Helper()
		online, err := h.set.Online(t.Context(), do, []string{"42", "7"})
		n, countErr := h.set.Count(t.Context(), do)
		if err != nil || countErr != nil || len(online) != 2 || n != 2 {
			t.Fatalf("online are %q, %v; counted %d, %v", online, err, n, countErr)
		}
	}
	relay.SetTarget("127.0.0.1:1") // refuses connections
	relay.Disconnect()
	for begin := time.Now(); time.Since(begin) < outage+time.Second; time.Sleep(20 * time.Millisecond) {
		check()
	}
	relay.SetTarget(server.Addr())
	eventually(t, "the leases are extended", func() bool {
		check()
		if n := h.count(); n >= 0 && n != 2 {
			t.Errorf("the hub counted %d users", n)
		}
		return server.Do("zcount", presenceKeys.Users, time.Now().Unix()+2, "+inf") == int64(2)
	})
	if got := strings.Join(seen.all(), ", "); strings.Contains(got, "offline") {
		t.Errorf("published %s", got)
	}
}

// Streams do not depend on a Redis that replies to everything except scripts.
func TestPresenceThatHangsDoesNotDelayStreams(t *testing.T) {
	t.Parallel()
	hung := make(chan struct{}, 1000)
	addr := redistest.StartFake(t, func(command ...string) string {
		switch strings.ToLower(command[0]) {
		case "hello":
			return "-ERR unknown command 'hello'"
		case "eval", "evalsha":
			hung <- struct{}{}
			return ""
		}
		return "+OK"
	}, false)
	h := startPresence(t, "redis://"+addr, nil)
	<-hung
	start := time.Now()
	for i := range 10_000 {
		h.open(t, fmt.Sprint(i))
		if n := h.hub.Publish(hub.User(fmt.Sprint(i)), "", "x"); n != 1 {
			t.Fatalf("a message reached %d streams", n)
		}
	}
	if took := time.Since(start); took > 3*time.Second { // less than one timeout of a script
		t.Errorf("10,000 streams took %v", took)
	}
	h.log.await(t, "WARN presence update failed, retrying", "reason=silent")
	h.log.warnings(t, 1)
}

// While a script fails, users who arrive do not cause attempts in addition to those after each pause: an outage is when many
// streams are opened.
func TestArrivalsDoNotShortenThePauseAfterAFailure(t *testing.T) {
	t.Parallel()
	var extensions, sweeps atomic.Int32
	addr := redistest.StartFake(t, func(command ...string) string {
		switch strings.ToLower(command[0]) {
		case "hello":
			return "-ERR unknown command 'hello'"
		case "eval", "evalsha":
			switch command[2] { // number of keys
			case "1":
				extensions.Add(1)
			case "2":
				sweeps.Add(1)
			}
			return "-NOPERM no permissions"
		}
		return "+OK"
	}, false)
	h := startPresence(t, "redis://"+addr, func(c *PresenceConfig) {
		c.extendEvery, c.sweepEvery, c.gather = time.Hour, 20*time.Millisecond, time.Millisecond
	})
	h.open(t, "first")
	eventually(t, "it is tried", func() bool { return extensions.Load() > 0 })
	for i := range 10 {
		h.open(t, fmt.Sprint(i))
		before := sweeps.Load()
		eventually(t, "the time to gather arrivals has passed", func() bool { return sweeps.Load() >= before+2 })
	}
	if n := extensions.Load(); n != 1 {
		t.Errorf("%d attempts within the pause after the first one", n)
	}
}
