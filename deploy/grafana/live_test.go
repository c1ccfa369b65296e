package grafana

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/internal/promtest"
)

// As in Grafana, the rate interval is four times the scrape interval.
const (
	scrapeEvery  = 250 * time.Millisecond
	rateInterval = "1s"
)

// watch starts a hub with traffic, and a Prometheus server with the rules that scrapes it.
func watch(t *testing.T) (*testHub, *promtest.Server) {
	t.Helper()
	h := startHub(t)
	rules, err := filepath.Abs("../prometheus/rules")
	if err != nil {
		t.Fatal(err)
	}
	p := promtest.Start(t, fmt.Sprintf(`
global: {scrape_interval: %[1]s, scrape_timeout: %[1]s, evaluation_interval: %[1]s}
rule_files: [%[2]q]
scrape_configs:
  - job_name: usercast
    static_configs: [{targets: [%[3]q]}]
`, scrapeEvery, rules+"/*.yml", h.metrics))
	p.Await("Prometheus has scraped the hub", func() bool { return len(p.Query("usercast_clients")) == 1 })

	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { h.generateTraffic(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return h, p
}

// asGrafana replaces the variables, as Grafana does if all hubs are selected.
func asGrafana(expr string) string {
	return strings.NewReplacer("$__rate_interval", rateInterval, "$__range", "1m", "$job", ".+", "$instance", ".+").Replace(expr)
}

func TestEveryQueryReturnsData(t *testing.T) {
	h, p := watch(t)
	d := load(t)
	wantPanels(t, p, d)
	wantAnnotations(t, p, d)
	wantVariables(t, p, d)
	wantRulesToRun(t, p)
	wantNames(t, p, d, scrape(t, h))
}

func wantPanels(t *testing.T, p *promtest.Server, d dashboard) {
	for _, panel := range d.shown() {
		for _, q := range panel.Targets {
			ask := func() []promtest.Series { return p.Range(asGrafana(q.Expr), 10*time.Second) }
			if q.Instant {
				ask = func() []promtest.Series { return p.Query(asGrafana(q.Expr)) }
			}
			wantData(t, p, panel.Title+", query "+q.RefID, q.LegendFormat, ask)
		}
	}
}

func wantAnnotations(t *testing.T, p *promtest.Server, d dashboard) {
	for _, a := range d.Annotations.List {
		if a.Expr != "" { // the built-in annotation has no query
			wantData(t, p, a.Name, "", func() []promtest.Series { return p.Query(asGrafana(a.Expr)) })
		}
	}
}

func wantVariables(t *testing.T, p *promtest.Server, d dashboard) {
	values := regexp.MustCompile(`^label_values\((.*),(\w+)\)$`)
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := values.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Fatalf("%s is %q", v.Name, v.Definition)
		}
		wantData(t, p, v.Name, "{{"+m[2]+"}}", func() []promtest.Series { return p.Query(asGrafana(m[1])) })
	}
}

// wantData waits until a query returns a number, and checks that each of its series has the
// labels in its legend.
func wantData(t *testing.T, p *promtest.Server, name, legend string, ask func() []promtest.Series) {
	t.Helper()
	var series []promtest.Series
	p.Await(name+" shows data", func() bool {
		series = ask()
		return slices.ContainsFunc(series, promtest.Series.Known)
	})
	for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(legend, -1) {
		for _, s := range series {
			if s.Metric[m[1]] == "" {
				t.Errorf("%s: the label %s is missing in %v", name, m[1], s.Metric)
			}
		}
	}
}

// The alert on lost messages has no delay, so its text can be checked, too.
func wantRulesToRun(t *testing.T, p *promtest.Server) {
	var all struct {
		Groups []struct {
			Rules []struct {
				Name, Health, LastError string
				Alerts                  []struct{ Annotations map[string]string }
			}
		}
	}
	p.Get("/api/v1/rules", &all)
	summaries := ""
	for _, group := range all.Groups {
		for _, rule := range group.Rules {
			if rule.Health != "ok" {
				t.Errorf("%s: %s %s", rule.Name, rule.Health, rule.LastError)
			}
			for _, alert := range rule.Alerts {
				summaries += alert.Annotations["summary"] + "\n"
			}
		}
	}
	if !regexp.MustCompile(`(?m)^Messages were lost; \d+ streams received a gap \(too-large\)\.$`).MatchString(summaries) {
		t.Errorf("the summaries of the alerts are\n%s", summaries)
	}
}

// leftOut maps metrics that the dashboard does not show to the reason.
var leftOut = map[string]string{
	"usercast_rejects_held": "usercast_rejects_total has the number of rejections by reason",
}

// wantNames compares the metric names in the dashboard and in the rules with those that exist.
func wantNames(t *testing.T, p *promtest.Server, d dashboard, metrics string) {
	var queries strings.Builder
	for _, panel := range d.shown() {
		for _, q := range panel.Targets {
			fmt.Fprintln(&queries, q.Expr)
		}
	}
	shown := names(queries.String())
	rules := ""
	for _, file := range []string{"recording.yml", "alerts.yml"} {
		text, err := os.ReadFile("../prometheus/rules/" + file)
		if err != nil {
			t.Fatal(err)
		}
		rules += string(text)
	}
	// A recording rule without enough samples yet has no series.
	missing := append(names(rules), shown...)
	for deadline := time.Now().Add(10 * time.Second); len(missing) > 0 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var existing []string
		p.Get("/api/v1/label/__name__/values", &existing)
		missing = slices.DeleteFunc(missing, func(name string) bool { return slices.Contains(existing, name) })
	}
	if len(missing) > 0 {
		t.Errorf("these metrics do not exist: %s", missing)
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (usercast_\w+) `).FindAllStringSubmatch(metrics, -1) {
		isShown := slices.ContainsFunc(shown, func(name string) bool {
			return strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count") == m[1]
		})
		if _, left := leftOut[m[1]]; isShown == left {
			t.Errorf("%s: shown %v, left out %v", m[1], isShown, left)
		}
	}
}

// names returns the metric names in a text, including recorded ones.
func names(text string) []string {
	return slices.DeleteFunc(regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`).FindAllString(text, -1), func(word string) bool {
		for _, prefix := range []string{"usercast_", "process_", "go_", "instance:", "instance_reason:", "instance_law:", "job:"} {
			if strings.HasPrefix(word, prefix) && !strings.HasSuffix(word, ":") {
				return false
			}
		}
		return true
	})
}

func scrape(t *testing.T, h *testHub) string {
	t.Helper()
	answer, err := http.Get("http://" + h.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
