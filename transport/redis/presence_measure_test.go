//go:build measure

package redis

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/redistest"
	"usercast/transport/redis/internal/topology"
)

// TestMeasurePresence measures what docs/presence.md says about costs: one hub with 100,000 users and the times of production.
// Run it on an idle machine.
func TestMeasurePresence(t *testing.T) {
	const users = 100_000
	server := redistest.Start(t)
	server.Do("config", "set", "slowlog-log-slower-than", "0")
	server.Do("config", "set", "slowlog-max-len", "100000")
	h := startPresence(t, server.URL(), func(c *PresenceConfig) { c.lease, c.extendEvery, c.sweepEvery, c.gather = 0, 0, 0, 0 })

	start := time.Now()
	for i := range users {
		h.open(t, fmt.Sprintf("user-%032d", i)) // as long as a UUID
	}
	eventually(t, "all are online", func() bool { return server.Do("zcard", PresenceKey("user-")) == int64(users) })
	t.Logf("%d users arrive at once: online after %v", users, time.Since(start).Round(time.Millisecond))
	report(t, server, "arrivals", func() {})

	report(t, server, "extensions and sweeps", func() { time.Sleep(30 * time.Second) })
	t.Logf("memory of the set: %v bytes", server.Do("memory", "usage", PresenceKey("user-"), "samples", "0"))

	// All users go offline at the same time: the hub dies, another one removes them.
	other := startPresence(t, server.URL(), func(c *PresenceConfig) { c.lease, c.extendEvery, c.sweepEvery, c.gather = 0, 0, 0, 0 })
	h.stop()
	died := time.Now()
	report(t, server, "removals", func() {
		for server.Do("zcard", PresenceKey("user-")) != int64(0) {
			time.Sleep(100 * time.Millisecond)
			if time.Since(died) > time.Minute {
				t.Fatal("users are left")
			}
		}
	})
	t.Logf("all were offline %v after the hub died", time.Since(died).Round(time.Millisecond))
	_ = other
	_ = hub.UserParts
}

// report logs what scripts cost Redis and this process while run runs.
func report(t *testing.T, server *redistest.Server, what string, run func()) {
	cpu := func() (own, redis float64) {
		var usage syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
		info := server.Do("info", "cpu").(string)
		user, _ := strconv.ParseFloat(topology.InfoField(info, "used_cpu_user"), 64)
		system, _ := strconv.ParseFloat(topology.InfoField(info, "used_cpu_sys"), 64)
		return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9, user + system
	}
	number := func(section, field string) float64 {
		n, _ := strconv.ParseFloat(topology.InfoField(server.Do("info", section).(string), field), 64)
		return n
	}
	server.Do("slowlog", "reset")
	own, redis := cpu()
	in, out, calls, start := number("stats", "total_net_input_bytes"), number("stats", "total_net_output_bytes"), callsOf(t, server, "evalsha"), time.Now()
	run()
	took := time.Since(start).Seconds()
	own2, redis2 := cpu()
	in2, out2, calls2 := number("stats", "total_net_input_bytes"), number("stats", "total_net_output_bytes"), callsOf(t, server, "evalsha")
	var scripts []int64
	for _, entry := range server.Do("slowlog", "get", "-1").([]any) {
		fields := entry.([]any)
		if strings.HasPrefix(strings.ToLower(fmt.Sprint(fields[3].([]any)[0])), "eval") {
			scripts = append(scripts, fields[2].(int64))
		}
	}
	if len(scripts) == 0 {
		return
	}
	slices.Sort(scripts)
	t.Logf("%s: %.0f s, %.1f scripts/s, %.0f kB/s to Redis, %.1f kB/s from it; CPU of one core: Redis %.1f %%, hub %.1f %%; scripts: median %d µs, 99 %% %d µs, longest %d µs",
		what, took, float64(calls2-calls)/took, (in2-in)/took/1e3, (out2-out)/took/1e3, 100*(redis2-redis)/took, 100*(own2-own)/took,
		scripts[len(scripts)/2], scripts[len(scripts)*99/100], scripts[len(scripts)-1])
}
