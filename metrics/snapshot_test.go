package metrics_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"usercast/metrics"
	"usercast/transport/redis"
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
	for _, label := range []string{"reason", "origin", "scope"} {
		if value := labels[label]; value != "" {
			byValue, _ := s[name].(map[string]any)
			return number(byValue[value])
		}
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

func TestSnapshotShowsTheFleet(t *testing.T) {
	t.Parallel()
	hubs := []redis.Hub{
		{Name: "a", Version: "v1.2.3", Streams: 12, Users: 9, Age: 2500 * time.Millisecond, Self: true},
		{Name: "b", Version: "v1.3.0", OtherPatterns: true},
	}
	for name, c := range map[string]struct {
		feeds      []redis.Stats
		fleet, why string
		hubs       int
	}{
		"two hubs": {[]redis.Stats{{Feed: "pubsub", Hubs: hubs}},
			`[{"name":"a","version":"v1.2.3","streams":12,"users":9,"age_seconds":2.5,"self":true,"other_server":false,"other_patterns":false},` +
				`{"name":"b","version":"v1.3.0","streams":0,"users":0,"age_seconds":0,"self":false,"other_server":false,"other_patterns":true}]`, "", 2},
		"no marker yet, and a hub on another server": {[]redis.Stats{{Feed: "pubsub", Hubs: []redis.Hub{{Name: "a", Age: -1, Self: true}, {Name: "b", Age: time.Second, OtherServer: true}}}},
			`[{"name":"a","version":"","streams":0,"users":0,"self":true,"other_server":false,"other_patterns":false},` +
				`{"name":"b","version":"","streams":0,"users":0,"age_seconds":1,"self":false,"other_server":true,"other_patterns":false}]`, "", 1},
		"the stream feed": {[]redis.Stats{{Feed: "stream"}}, "[]", "with --feed stream, hubs do not write markers", 1},
		"several Redis":   {[]redis.Stats{{Feed: "pubsub"}, {Feed: "pubsub"}}, "[]", "with several --redis, hubs do not write markers", 1},
	} {
		s := metrics.Sources{Feeds: func() []redis.Stats { return c.feeds }}.Snapshot()
		fleet, err := json.Marshal(s.Fleet)
		if err != nil || string(fleet) != c.fleet || s.FleetWhy != c.why || s.Hubs != c.hubs {
			t.Errorf("%s: %s, %q, %d hubs, %v", name, fleet, s.FleetWhy, s.Hubs, err)
		}
	}
}
