package main

import "strconv"

// A hub is a program to compare.
type hub struct {
	name, pkg string
	args      func(v *comparison, ping string) []string
}

const ours = "usercast"

var hubs = []hub{
	{ours, "usercast/cmd/usercast", func(v *comparison, ping string) []string {
		return []string{"serve", "--auth", "insecure", "--listen", v.listen, "--admin-listen", v.admin,
			"--redis", "redis://" + v.redis, "--ping-interval", ping}
	}},
	{"lowerbound", "usercast/bench/lowerbound", func(v *comparison, ping string) []string {
		return append(bare(v, ping), "-writers", strconv.Itoa(v.writers))
	}},
	{"baseline", "usercast/bench/baseline", bare},
}

func bare(v *comparison, ping string) []string {
	return []string{"-listen", v.listen, "-admin", v.admin, "-redis", v.redis, "-ping", ping}
}

// A scenario is one run of usercast bench. args are added to the arguments of all runs.
type scenario struct {
	name string
	ping string
	args []string
}

var scenarios = []scenario{
	// Each stream receives two pings in the idle phase.
	{"user, open loop", "5s", []string{"--idle", "10s", "--rate", "5000"}},
	{"user, closed loop", "15s", []string{"--rate", "0", "--outstanding", "512"}},
	{"broadcast, open loop", "15s", []string{"--broadcast", "--rate", "2"}},
	// One message in flight: usercast writes several queued messages with one call.
	{"broadcast, closed loop", "15s", []string{"--broadcast", "--rate", "0", "--outstanding", "1"}},
}

// A measure is a number in the report of a scenario.
type measure struct {
	scenario, name string
	field          string // path in the JSON of usercast bench: see find
	more           bool   // more is better; otherwise less is better
}

const (
	perMillion = "loops.0.hub_cpu_s_per_1m_deliveries"
	perSecond  = "loops.0.deliveries_per_s"
	median     = "loops.0.latency.p50_ms"
	tail       = "loops.0.latency.p99_ms"
	lastMedian = "loops.0.last_stream_latency.p50_ms"
	lastTail   = "loops.0.last_stream_latency.p99_ms"
)

var measures = []measure{
	{"user, open loop", "CPU per connect, µs", "connect.hub_cpu_us_per_connect", false},
	{"user, open loop", "memory per idle stream, KiB", "idle.hub_rss_kib_per_stream", false},
	{"user, open loop", "CPU per ping, µs", "idle.hub_cpu_us_per_ping", false},
	{"user, open loop", "CPU per million deliveries, s", perMillion, false},
	{"user, open loop", "latency p50, ms", median, false},
	{"user, open loop", "latency p99, ms", tail, false},
	{"user, closed loop", "CPU per million deliveries, s", perMillion, false},
	{"user, closed loop", "deliveries per second", perSecond, true},
	{"user, closed loop", "latency p50, ms", median, false},
	{"user, closed loop", "latency p99, ms", tail, false},
	{"broadcast, open loop", "CPU per million deliveries, s", perMillion, false},
	{"broadcast, open loop", "last stream p50, ms", lastMedian, false},
	{"broadcast, open loop", "last stream p99, ms", lastTail, false},
	{"broadcast, closed loop", "CPU per million deliveries, s", perMillion, false},
	{"broadcast, closed loop", "deliveries per second", perSecond, true},
	{"broadcast, closed loop", "last stream p50, ms", lastMedian, false},
}

// checks are added up over all runs of a hub.
var checks = []measure{
	{name: "streams that did not open", field: "connect.failed"},
	{name: "lost, not announced", field: "checks.lost"},
	{name: "lost, announced", field: "checks.lost_announced"},
	{name: "duplicated", field: "checks.doubled"},
	{name: "out of order", field: "checks.misordered"},
	{name: "sent to the wrong user", field: "checks.wrong_user"},
	{name: "streams that ended early", field: "checks.ended"},
}
