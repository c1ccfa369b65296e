package metrics_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The exposition and the snapshot contain the same values under the same names.
func TestSnapshotMatchesTheExposition(t *testing.T) {
	text, err := json.Marshal(busy().Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	sample := regexp.MustCompile(`(?m)^usercast_(\w+?)(_total)?(?:\{(.*)\})? (\S+)$`)
	golden, err := os.ReadFile("testdata/busy.prom")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, m := range sample.FindAllStringSubmatch(string(golden), -1) {
		name, labels, value := m[1], labelsOf(m[3]), m[4]
		if name == "build_info" {
			continue
		}
		seen++
		want, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := lookUp(s, name, labels); !ok || got != want {
			t.Errorf("%s%v is %v in the snapshot (there: %v), %v to Prometheus", name, labels, got, ok, want)
		}
	}
	if all := len(regexp.MustCompile(`(?m)^usercast_`).FindAll(golden, -1)); seen != all-1 { // build_info
		t.Errorf("%d of %d samples were compared", seen, all)
	}
}

func labelsOf(text string) map[string]string {
	labels := make(map[string]string)
	for _, m := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		labels[m[1]] = m[2]
	}
	return labels
}

// lookUp returns the value in the snapshot that corresponds to a sample.
func lookUp(s map[string]any, name string, labels map[string]string) (float64, bool) {
	if redis := labels["redis"]; redis != "" {
		for _, f := range s["feeds"].([]any) {
			if feed := f.(map[string]any); feed["redis"] == redis && feed["feed"] == labels["feed"] {
				return number(feed[strings.TrimPrefix(name, "redis_")])
			}
		}
		return 0, false
	}
	if reason := labels["reason"]; reason != "" {
		byReason, _ := s[name].(map[string]any)
		return number(byReason[reason])
	}
	for suffix, field := range map[string]string{"_sum": "sum", "_count": "count"} {
		if h, ok := s[strings.TrimSuffix(name, suffix)].(map[string]any); ok && strings.HasSuffix(name, suffix) {
			return number(h[field])
		}
	}
	if h, ok := s[strings.TrimSuffix(name, "_bucket")].(map[string]any); ok {
		if labels["le"] == "+Inf" {
			return number(h["count"])
		}
		for _, b := range h["buckets"].([]any) {
			bucket := b.(map[string]any)
			if strconv.FormatFloat(bucket["le"].(float64), 'g', -1, 64) == labels["le"] {
				return number(bucket["count"])
			}
		}
		return 0, false
	}
	return number(s[name])
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}
