package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// Fields can be missing, null or new.
func TestReportsAreReadLeniently(t *testing.T) {
	const report = `{"new": true, "idle": {"a": 1.5, "b": null}, "loops": [{"p50": 2}], "ended": {"x": 1, "y": 2}}`
	var decoded any
	if err := json.Unmarshal([]byte(report), &decoded); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]float64{"idle.a": 1.5, "loops.0.p50": 2, "ended": 3} {
		if got, ok := find(decoded, path); !ok || got != want {
			t.Errorf("%s: %v, %v, want %v", path, got, ok, want)
		}
	}
	for _, path := range []string{"idle.b", "idle.c", "idle.a.b", "loops.1.p50", "loops.x", "new", "missing"} {
		if got, ok := find(decoded, path); ok {
			t.Errorf("%s: %v, although it was not measured", path, got)
		}
	}
}

func TestRowShowsMedianRangeAndRatio(t *testing.T) {
	v := comparison{rounds: 3, scenarios: scenarios}
	results := func(hub string, p50s ...string) (list []result) {
		for _, p50 := range p50s {
			list = append(list, result{Scenario: scenarios[0].name, Hub: hub, Report: json.RawMessage(`{"loops": [{"latency": {"p50_ms": ` + p50 + `}}]}`)})
		}
		return list
	}
	var out strings.Builder
	if err := v.print(&out, append(results(ours, "3", "12", "4"), results("lowerbound", "1", "2", "3")...)); err != nil {
		t.Fatal(err)
	}
	const want = "| latency p50, ms | 4.00 (3.00–12.0) | 2.00 (1.00–3.00) | – | 2.00 | – |\n"
	if !strings.Contains(out.String(), want) {
		t.Errorf("no row %q in\n%s", want, out.String())
	}
}

// Each measure belongs to a scenario. Otherwise print would omit it.
func TestMeasuresHaveTheirScenario(t *testing.T) {
	known := make(map[string]bool)
	for _, s := range scenarios {
		known[s.name] = true
	}
	for _, m := range measures {
		if !known[m.scenario] {
			t.Errorf("no scenario %q for %q", m.scenario, m.name)
		}
	}
}
