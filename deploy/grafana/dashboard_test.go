// Package grafana tests the dashboard in this directory: its structure, and each of its
// queries on a Prometheus server that scrapes a hub. It does not run Grafana itself.
package grafana

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const dashboardFile = "dashboards/usercast.json"

// dashboard contains the fields of the dashboard format that the tests use.
type dashboard struct {
	UID           string
	SchemaVersion int
	Panels        []panel
	Annotations   struct{ List []annotation }
	Templating    struct{ List []variable }
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               source
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []target
	Panels                   []panel
	FieldConfig              struct{ Defaults struct{ Unit string } }
}

type target struct {
	RefID, Expr, LegendFormat string
	Instant                   bool
	Datasource                source
}

type annotation struct {
	Name, Expr string
	Datasource source
}

type variable struct{ Name, Type, Definition string }

type source struct{ Type, UID string }

// chosen is the data source that is selected at the top of the dashboard.
var chosen = source{"prometheus", "${datasource}"}

func load(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.UID != "usercast" || d.SchemaVersion < 39 || len(d.Panels) == 0 {
		t.Fatalf("a dashboard %q of schema version %d with %d panels", d.UID, d.SchemaVersion, len(d.Panels))
	}
	return d
}

// shown returns the panels that show data.
func (d dashboard) shown() []panel {
	return slices.DeleteFunc(slices.Clone(d.Panels), func(p panel) bool { return p.Type == "row" })
}

func TestPanelsDoNotOverlap(t *testing.T) {
	d := load(t)
	ids, titles := map[int]bool{}, map[string]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if p.ID <= 0 || ids[p.ID] {
			t.Errorf("%s: the id %d is invalid or not unique", p.Title, p.ID)
		}
		if p.Title == "" || titles[p.Title] {
			t.Errorf("%d: the title %q is empty or not unique", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		at := p.GridPos
		if at.W < 1 || at.H < 1 || at.X < 0 || at.Y < 0 || at.X+at.W > 24 {
			t.Errorf("%s is outside the grid: %+v", p.Title, at)
		}
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("%s overlaps %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if len(p.Panels) > 0 {
			t.Errorf("%s contains collapsed panels", p.Title)
		}
	}
}

// units are unit ids of Grafana by panel type. Grafana prints an unknown id literally after the
// value.
var units = map[string][]string{
	"stat":           {"short", "mps", "s"},
	"timeseries":     {"short", "mps", "cps", "s", "bytes", "Bps", "percentunit"},
	"heatmap":        {""}, // the axis has the unit
	"state-timeline": {""},
	"table":          {""},
}

func TestPanelsAreComplete(t *testing.T) {
	for _, p := range load(t).shown() {
		known := units[p.Type]
		if known == nil || !slices.Contains(known, p.FieldConfig.Defaults.Unit) {
			t.Errorf("%s is a %s with the unit %q", p.Title, p.Type, p.FieldConfig.Defaults.Unit)
		}
		if p.Description == "" {
			t.Errorf("%s has no description", p.Title)
		}
		if p.Datasource != chosen || len(p.Targets) == 0 {
			t.Errorf("%s has the data source %+v and %d queries", p.Title, p.Datasource, len(p.Targets))
		}
		ids := map[string]bool{}
		for _, q := range p.Targets {
			if q.Datasource != chosen || q.RefID == "" || ids[q.RefID] {
				t.Errorf("%s: query %q has the data source %+v or an id that is not unique", p.Title, q.RefID, q.Datasource)
			}
			ids[q.RefID] = true
			if len(p.Targets) > 1 && q.LegendFormat == "" {
				t.Errorf("%s: query %s has an empty legend", p.Title, q.RefID)
			}
		}
	}
}

// selector matches a metric name and its label matchers.
var selector = regexp.MustCompile(`[a-z_]+\{([^}]*)\}`)

// All queries use the selected jobs and hubs.
func TestEveryQueryUsesTheVariables(t *testing.T) {
	d := load(t)
	known := []string{"__rate_interval", "__range"}
	for _, v := range d.Templating.List {
		known = append(known, v.Name)
	}
	check := func(name, expr string) {
		for _, m := range selector.FindAllStringSubmatch(expr, -1) {
			if !strings.HasPrefix(m[0], "ALERTS{") && !strings.HasPrefix(m[1], `job=~"$job", instance=~"$instance"`) {
				t.Errorf("%s selects all hubs: %s", name, m[0])
			}
		}
		for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(expr, -1) {
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s: the variable %s does not exist", name, m[0])
			}
		}
	}
	for _, p := range d.shown() {
		for _, q := range p.Targets {
			check(fmt.Sprintf("%s, query %s", p.Title, q.RefID), q.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		check(a.Name, a.Expr)
	}
}
