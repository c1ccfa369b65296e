package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"strconv"

	"usercast/internal/load"
)

// A row has the results for one total. CPU time is the user and system time of the hubs.
type row struct {
	streams, hubs  int
	heap, resident float64 // growth in bytes per stream since before the first stream
	connect        float64 // CPU seconds per stream
	ping           float64 // CPU seconds per ping, in the idle phase
	deliveries     int64
	pings          int64   // while messages were published
	allHubs        float64 // CPU seconds per delivery, of all hubs together, including pings
	foreign        float64 // CPU seconds per message, of a hub without streams
	p50, p99       float64 // milliseconds, of the slowest hub
	failed, ended  int64   // streams that did not open, or ended early
	checks         load.Checks
	faults         []string
}

// newRow adds up the reports of all hubs. bystander is the CPU time of the hub without streams, in seconds.
func newRow(reports []load.Report, bystander float64) row {
	r := row{hubs: len(reports)}
	var messages, idlePings int64
	for i := range reports {
		report := &reports[i]
		r.streams += report.Streams
		r.faults = append(r.faults, report.Faults...)
		r.failed += report.Connect.Failed
		for _, n := range report.Checks.Ended {
			r.ended += n
		}
		r.checks.Lost += report.Checks.Lost + report.Checks.LostAnnounced
		r.checks.Duplicated += report.Checks.Duplicated
		r.checks.Misordered += report.Checks.Misordered
		r.checks.WrongUser += report.Checks.WrongUser
		r.checks.Foreign += report.Checks.Foreign
		opened := float64(report.Connect.Opened)
		if c := report.Connect.HubPerOne; c != nil {
			r.connect += *c / 1e6 * opened
		}
		if idle := report.Idle; idle != nil && idle.HubKiB != nil {
			r.ping += idle.Cost.Hub.CPU
			idlePings += idle.Pings
			r.resident += *idle.HubKiB * 1024 * opened
			r.heap += *idle.HubHeapKiB * 1024 * opened
		}
		for _, loop := range report.Loops {
			messages += loop.Messages
			r.deliveries += loop.Delivered
			r.pings += loop.Pings
			if loop.Cost.Hub != nil {
				r.allHubs += loop.Cost.Hub.CPU
			}
			r.p50, r.p99 = max(r.p50, loop.Latency.P50), max(r.p99, loop.Latency.P99)
		}
	}
	r.heap /= float64(max(r.streams, 1))
	r.resident /= float64(max(r.streams, 1))
	r.connect /= float64(max(r.streams, 1))
	r.ping /= float64(max(idlePings, 1))
	r.allHubs /= float64(max(r.deliveries, 1))
	r.foreign = bystander / float64(max(messages, 1))
	return r
}

// own returns the CPU time per delivery at the hub that has the stream, in seconds: the time of all hubs without pings and
// without messages for the streams of other hubs.
func (r row) own() float64 {
	return r.allHubs - r.ping*float64(r.pings)/float64(max(r.deliveries, 1)) - float64(r.hubs-1)*r.foreign
}

// bench/README.md explains the columns.
var columns = []struct {
	name     string
	decimals int
	of       func(row) float64
}{
	{"streams", 0, func(r row) float64 { return float64(r.streams) }},
	{"hubs", 0, func(r row) float64 { return float64(r.hubs) }},
	{"heap_and_stack_bytes_per_stream", 0, func(r row) float64 { return r.heap }},
	{"rss_bytes_per_stream", 0, func(r row) float64 { return r.resident }},
	{"connect_cpu_us", 1, func(r row) float64 { return r.connect * 1e6 }},
	{"ping_cpu_us", 1, func(r row) float64 { return r.ping * 1e6 }},
	{"deliveries", 0, func(r row) float64 { return float64(r.deliveries) }},
	{"pings", 0, func(r row) float64 { return float64(r.pings) }},
	{"all_hubs_cpu_us_per_delivery", 1, func(r row) float64 { return r.allHubs * 1e6 }},
	{"foreign_message_cpu_us", 1, func(r row) float64 { return r.foreign * 1e6 }},
	{"delivery_cpu_us", 1, func(r row) float64 { return r.own() * 1e6 }},
	{"delivery_p50_ms", 3, func(r row) float64 { return r.p50 }},
	{"delivery_p99_ms", 3, func(r row) float64 { return r.p99 }},
	{"lost", 0, func(r row) float64 { return float64(r.checks.Lost) }},
	{"doubled", 0, func(r row) float64 { return float64(r.checks.Duplicated) }},
	{"misordered", 0, func(r row) float64 { return float64(r.checks.Misordered) }},
	{"wrong_user", 0, func(r row) float64 { return float64(r.checks.WrongUser + r.checks.Foreign) }},
	{"streams_failed", 0, func(r row) float64 { return float64(r.failed) }},
	{"streams_ended_early", 0, func(r row) float64 { return float64(r.ended) }},
}

func (r row) String() string {
	return fmt.Sprintf("%d streams at %d hubs: %.0f B resident each; CPU µs: connect %.0f, ping %.0f, delivery %.1f (message for another hub %.1f); p50 %.2f, p99 %.2f ms; %d of %d lost, %d duplicated, %d out of order",
		r.streams, r.hubs, r.resident, r.connect*1e6, r.ping*1e6, r.own()*1e6, r.foreign*1e6, r.p50, r.p99, r.checks.Lost, r.deliveries+r.checks.Lost, r.checks.Duplicated, r.checks.Misordered)
}

func writeCSV(file string, rows []row) error {
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	var names []string
	for _, c := range columns {
		names = append(names, c.name)
	}
	_ = w.Write(names) // writes to memory do not fail
	for _, r := range rows {
		var cells []string
		for _, c := range columns {
			cells = append(cells, strconv.FormatFloat(c.of(r), 'f', c.decimals, 64))
		}
		_ = w.Write(cells)
	}
	w.Flush()
	return os.WriteFile(file, text.Bytes(), 0o644)
}
