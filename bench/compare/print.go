package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// print writes the comparison as Markdown.
func (v *comparison) print(w io.Writer, results []result) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %s, %d cores. %d streams, %v of publishing per run.\n", runtime.Version(), runtime.GOARCH, runtime.NumCPU(), v.streams, v.duration)
	fmt.Fprintf(&b, "Rounds: %d. Each value is the median (lowest–highest); × is the ratio of usercast to the other hub.\n", v.rounds)

	reports, err := decode(results)
	if err != nil {
		return err
	}
	var others []string
	for _, h := range hubs {
		if h.name != ours {
			others = append(others, h.name)
		}
	}
	names := append([]string{ours}, others...)
	for _, s := range v.scenarios {
		fmt.Fprintf(&b, "\n| %s | %s | × %s |\n|---|%s\n", s.name, strings.Join(names, " | "), strings.Join(others, " | × "),
			strings.Repeat("---:|", len(names)+len(others)))
		for _, m := range measures {
			if m.scenario == s.name {
				writeRow(&b, m, names, reports)
			}
		}
	}
	fmt.Fprintf(&b, "\n| all runs | %s |\n|---|%s\n", strings.Join(names, " | "), strings.Repeat("---:|", len(names)))
	for _, c := range checks {
		fmt.Fprintf(&b, "| %s |", c.name)
		for _, name := range names {
			sum := 0.0
			for _, s := range v.scenarios {
				for _, report := range reports[place{s.name, name}] {
					n, _ := find(report, c.field)
					sum += n
				}
			}
			fmt.Fprintf(&b, " %.0f |", sum)
		}
		b.WriteByte('\n')
	}
	_, err = w.Write(b.Bytes())
	return err
}

// writeRow writes one measure: the values of all hubs, and then the ratios.
func writeRow(b *bytes.Buffer, m measure, names []string, reports map[place][]any) {
	name := m.name
	if m.more {
		name += " (more is better)"
	}
	fmt.Fprintf(b, "| %s |", name)
	var medians []float64
	for _, hub := range names {
		var values []float64
		for _, report := range reports[place{m.scenario, hub}] {
			if v, ok := find(report, m.field); ok {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			medians = append(medians, 0)
			b.WriteString(" – |")
			continue
		}
		slices.Sort(values)
		medians = append(medians, middle(values))
		fmt.Fprintf(b, " %s (%s–%s) |", figure(middle(values)), figure(values[0]), figure(values[len(values)-1]))
	}
	for _, theirs := range medians[1:] {
		if medians[0] == 0 || theirs == 0 {
			b.WriteString(" – |")
			continue
		}
		fmt.Fprintf(b, " %.2f |", medians[0]/theirs)
	}
	b.WriteByte('\n')
}

// A place is a scenario and a hub.
type place struct{ scenario, hub string }

// decode decodes the reports. It does not require any field.
func decode(results []result) (map[place][]any, error) {
	reports := make(map[place][]any)
	for _, r := range results {
		var report any
		if err := json.Unmarshal(r.Report, &report); err != nil {
			return nil, fmt.Errorf("parse the output of usercast bench: %w", err)
		}
		at := place{r.Scenario, r.Hub}
		reports[at] = append(reports[at], report)
	}
	return reports, nil
}

// find returns the number at a path such as "loops.0.latency.p50_ms", or the sum of the numbers in an object. ok is false if
// the value is missing or null.
func find(report any, path string) (n float64, ok bool) {
	at := report
	for step := range strings.SplitSeq(path, ".") {
		switch v := at.(type) {
		case map[string]any:
			at = v[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(v) {
				return 0, false
			}
			at = v[i]
		default:
			return 0, false
		}
	}
	switch v := at.(type) {
	case float64:
		return v, true
	case map[string]any:
		for _, part := range v {
			p, _ := part.(float64)
			n += p
		}
		return n, true
	}
	return 0, false
}

// middle returns the median of sorted values.
func middle(values []float64) float64 {
	half := len(values) / 2
	if len(values)%2 == 0 {
		return (values[half-1] + values[half]) / 2
	}
	return values[half]
}

// figure formats a number with three digits or, if it is large, without a fraction.
func figure(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10 || v <= -10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
