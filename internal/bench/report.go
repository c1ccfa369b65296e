package bench

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize/english"
	"usercast/internal/load"
)

// writeText writes the report as text. Run returns its faults as errors.
func writeText(w io.Writer, r *load.Report) error {
	var b bytes.Buffer
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }

	fmt.Fprintf(&b, "%s of %s at %s\n\n", english.Plural(r.Streams, "stream", "streams"), english.Plural(r.Users, "user", "users"), strings.Join(r.URLs, " and "))
	c := r.Connect
	row("connect", fmt.Sprintf("%d opened in %.1f s, %d failed", c.Opened, c.Seconds, c.Failed))
	row("", "first bytes", latency(c.FirstBytes))
	if hub := c.Cost.Hub; hub != nil && c.HubPerOne != nil {
		row("", "hub", fmt.Sprintf("CPU per connect: %s; %s resident", perOne(hub, c.HubPerOne), mib(hub.RSSAfter)))
	}
	if p := r.Idle; p != nil {
		row("idle", fmt.Sprintf("%.1f s, %s", p.Seconds, english.Plural(int(p.Pings), "ping", "pings")))
		if hub := p.Cost.Hub; hub != nil {
			line := fmt.Sprintf("%.2f s CPU", hub.CPU)
			if p.HubPerPing != nil {
				line += fmt.Sprintf(", per ping: %s", perOne(hub, p.HubPerPing))
			}
			if p.HubKiB != nil {
				line += fmt.Sprintf("; per stream: %.1f KiB resident, %.1f KiB of heap and stacks", *p.HubKiB, *p.HubHeapKiB)
			}
			row("", "hub", line)
		}
	}
	for _, l := range r.Loops {
		how := fmt.Sprintf("%g messages/s", l.Rate)
		if l.Kind == "closed" {
			how = fmt.Sprintf("%d outstanding", l.Outstanding)
		}
		row(l.Kind+" loop", fmt.Sprintf("%s: %d messages in %.1f s, %d of %d deliveries, %.0f/s", how, l.Messages, l.Seconds, l.Delivered, l.Expected, l.PerSecond))
		row("", "latency", latency(l.Latency))
		if l.LastStream != nil {
			row("", "last stream", latency(*l.LastStream))
		}
		if l.LagMax >= 1 {
			row("", "publisher", fmt.Sprintf("up to %.1f ms behind schedule: that part of the latency is caused by bench", l.LagMax))
		}
		if hub := l.Cost.Hub; hub != nil && l.HubPer1M != nil {
			row("", "hub", fmt.Sprintf("%.2f s CPU, %.1f s per million deliveries%s; %s resident", hub.CPU, *l.HubPer1M, collector(hub), mib(hub.RSSAfter)))
		}
		row("", "bench", fmt.Sprintf("%.2f s CPU", l.Cost.ClientCPU))
	}
	if k := r.Checks; len(r.Loops) > 0 {
		row("check", fmt.Sprintf("%d lost, %d duplicated, %d out of order, %d delivered to the wrong user", k.Lost, k.Duplicated, k.Misordered, k.WrongUser))
		row("", fmt.Sprintf("%s announced, covering %s; %s ended early", english.Plural(int(sum(k.Gaps)), "gap", "gaps")+reasons(k.Gaps), english.Plural(int(k.LostAnnounced), "lost message", "lost messages"), english.Plural(int(sum(k.Ended)), "stream", "streams")+reasons(k.Ended)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "\nnote: %s", note)
	}
	if len(r.Notes) > 0 {
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

func latency(l load.Latency) string {
	if l.Count == 0 {
		return "no samples"
	}
	return fmt.Sprintf("p50 %.2f   p90 %.2f   p99 %.2f   p99.9 %.2f   max %.2f ms", l.P50, l.P90, l.P99, l.P999, l.Max)
}

// collector formats the garbage collector's share of the hub's CPU time.
func collector(hub *load.Hub) string {
	if hub.CPUGC <= 0 || hub.CPU <= 0 {
		return "" // no collection has finished
	}
	return fmt.Sprintf(", %.1f %% garbage collection", hub.CPUGC/hub.CPU*100)
}

// perOne formats a cost in microseconds. Very short CPU times are too inaccurate: the clock has steps of 10 ms.
func perOne(hub *load.Hub, us *float64) string {
	if hub.CPU < 0.05 {
		return "too small to measure"
	}
	return fmt.Sprintf("%.0f µs", *us)
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// reasons formats counts by reason, such as " (3 kicked, 1 drain)".
func reasons[R ~string](m map[R]int64) string {
	if len(m) == 0 {
		return ""
	}
	return " (" + load.ByReason(m) + ")"
}

func sum[R ~string](m map[R]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}
