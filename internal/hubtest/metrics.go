package hubtest

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// Samples contains the values of a scrape, by name and labels in the format of Prometheus.
type Samples map[string]float64

// Scrape reads the metrics of the admin listener at host:port.
func Scrape(tb testing.TB, admin string) Samples {
	tb.Helper()
	r := Request(tb, "GET", "http://"+admin+"/metrics")
	if r.Status != 200 {
		tb.Fatalf("the scrape returns status %d: %s", r.Status, r.Body)
	}
	s := make(Samples)
	for line := range strings.Lines(r.Body) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		if err != nil {
			tb.Fatalf("a scrape contains %q: %v", line, err)
		}
		s[line[:i]] = v
	}
	return s
}

// Sum returns the sum of a metric over all its labels, or over those that begin with the given ones.
func (s Samples) Sum(name string) (sum float64) {
	for sample, v := range s {
		if sample == name || strings.HasPrefix(sample, name) && strings.HasPrefix(sample[len(name):], "{") {
			sum += v
		}
	}
	return sum
}

// ByReason returns a sample by its label reason.
func (s Samples) ByReason(name, reason string) float64 { return s[name+Reason(reason)] }

// Reason returns the label reason in the format of a sample.
func Reason(reason string) string { return `{reason="` + reason + `"}` }

// WantMetrics waits until sums of metrics, by name with or without labels, have the given values. It waits because a
// client may have read a message that the hub has not counted yet.
func WantMetrics(tb testing.TB, admin string, want map[string]float64) {
	tb.Helper()
	for deadline := time.Now().Add(Soon); ; time.Sleep(2 * time.Millisecond) {
		m, all := Scrape(tb, admin), true
		for name, v := range want {
			all = all && m.Sum(name) == v
		}
		if all {
			return
		}
		if time.Now().After(deadline) {
			for name, v := range want {
				if got := m.Sum(name); got != v {
					tb.Errorf("%s is %v, want %v", name, got, v)
				}
			}
			return
		}
	}
}
