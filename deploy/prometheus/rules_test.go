// Package prometheus tests the rules in this directory with promtool, and compares them with
// docs/prometheus.md.
package prometheus

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"usercast/internal/promtest"
)

func TestRules(t *testing.T) {
	promtest.Tool(t, "check", "config", "--lint=all", "--lint-fatal", "prometheus.yml")
	promtest.Tool(t, append([]string{"check", "rules", "--lint=all", "--lint-fatal"}, glob(t, "rules/*.yml")...)...)
	promtest.Tool(t, append([]string{"test", "rules"}, glob(t, "tests/*.yml")...)...)
}

// For each alert, there is a test with its name in which it fires, and the firing alert has
// every label that its annotations use.
func TestEveryAlertIsTested(t *testing.T) {
	var tests strings.Builder
	for _, file := range glob(t, "tests/*.yml") {
		tests.WriteString(read(t, file))
	}
	used := regexp.MustCompile(`\$labels\.(\w+)`)
	for _, a := range alerts(t) {
		if !strings.Contains(tests.String(), "\n  - name: "+a.Alert+"\n") {
			t.Errorf("no test has the name %s", a.Alert)
		}
		firing := regexp.MustCompile(`ALERTS\{alertname="` + a.Alert + `", alertstate="firing", [^}]*severity="` + a.Labels["severity"] + `"[^}]*\}'\n +value: 1`).FindString(tests.String())
		if firing == "" {
			t.Errorf("%s does not fire in any test", a.Alert)
		}
		for _, m := range used.FindAllStringSubmatch(a.Annotations["summary"]+a.Annotations["description"], -1) {
			if !strings.Contains(firing, " "+m[1]+`="`) {
				t.Errorf("the annotations of %s use the label %s, which it does not have", a.Alert, m[1])
			}
		}
	}
}

func TestEveryAlertIsDocumented(t *testing.T) {
	docs := read(t, "../../docs/prometheus.md")
	var names []string
	for _, a := range alerts(t) {
		names = append(names, a.Alert)
		if s := a.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s has the severity %q", a.Alert, s)
		}
		if want := "docs/prometheus.md#" + strings.ToLower(a.Alert); a.Annotations["runbook"] != want {
			t.Errorf("%s has the runbook %q, want %q", a.Alert, a.Annotations["runbook"], want)
		}
		if a.Annotations["summary"] == "" || a.Annotations["description"] == "" {
			t.Errorf("%s has an empty summary or description", a.Alert)
		}
		_, section, found := strings.Cut(docs, "\n### "+a.Alert+"\n")
		section, _, _ = strings.Cut(section, "\n##")
		if !found || !strings.HasPrefix(strings.TrimSpace(section), a.Labels["severity"]+":") {
			t.Errorf("docs/prometheus.md has no section %s that begins with %q", a.Alert, a.Labels["severity"]+":")
		}
	}
	for _, m := range regexp.MustCompile(`Usercast[A-Z]\w*`).FindAllString(docs, -1) {
		if !slices.Contains(names, m) {
			t.Errorf("docs/prometheus.md names %s, which is not an alert", m)
		}
	}
}

// An alert or a recording rule in a rule file.
type rule struct {
	Alert, Record       string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (all []rule) {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []rule }
	}
	if err := yaml.Unmarshal([]byte(read(t, "rules/alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no alerts")
	}
	return all
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no file matches %s: %v", pattern, err)
	}
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
