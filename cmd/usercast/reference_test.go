package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"usercast/internal/app"
	"usercast/internal/hubtest"
)

var update = flag.Bool("update", false, "write docs/reference.md anew")

// The reference is made of what the parser and the registry know: nobody can forget it.
func TestReferenceIsUpToDate(t *testing.T) {
	const file = "../../docs/reference.md"
	got := reference(t)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/reference.md is not what the code says; write it anew:\n\n\tgo test ./cmd/usercast -run TestReferenceIsUpToDate -update\n")
	}
}

func reference(t *testing.T) []byte {
	var b bytes.Buffer
	b.WriteString(`# Reference

All commands, flags and metrics. This page is made from the code: ` + "`go test ./cmd/usercast -run TestReferenceIsUpToDate -update`" + ` writes it
anew, and the same test fails when it is not up to date. What they mean together: [README](../README.md) and [the guides](README.md).

Each flag can be given in the environment, by the name beside it; the command line wins. A flag that may be given more than once takes a
comma-separated list there, but for ` + "`USERCAST_REDIS`" + `, which is one URL. Durations are written ` + "`15s`, `2m`" + `, sizes ` + "`128KiB`, `1MiB`" + `.
`)
	writeCommands(t, &b)
	writeMetrics(t, &b)
	return b.Bytes()
}

// writeCommands writes a section for each command. A flag that an earlier command has with
// the same words is only named.
func writeCommands(t *testing.T, b *bytes.Buffer) {
	parser, err := kong.New(new(commands), kong.Name("usercast"), kong.DefaultEnvars("USERCAST"), kong.Vars(app.FlagDefaults))
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]string) // the row of a flag → the command that has it
	for _, command := range parser.Model.Leaves(true) {
		fmt.Fprintf(b, "\n## `usercast %s`\n\n%s\n", command.Path(), command.Help)
		if len(command.Positional) > 0 {
			b.WriteString("\n| argument | |\n|---|---|\n")
			for _, p := range command.Positional {
				fmt.Fprintf(b, "| `%s` | %s |\n", p.Summary(), cell(strings.TrimSuffix(p.Help, ".")))
			}
		}
		var rows []string
		same := make(map[string][]string) // command → flags that are as there
		var order []string
		for _, group := range command.AllFlags(true) {
			for _, f := range group {
				if f.Name == "help" {
					continue
				}
				row := flagRow(f)
				if other, ok := known[row]; ok {
					if !slices.Contains(order, other) {
						order = append(order, other)
					}
					same[other] = append(same[other], "`--"+f.Name+"`")
					continue
				}
				known[row] = command.Path()
				rows = append(rows, row)
			}
		}
		if len(rows) > 0 {
			b.WriteString("\n| flag | environment | default | |\n|---|---|---|---|\n" + strings.Join(rows, ""))
		}
		for _, other := range order {
			fmt.Fprintf(b, "\nAs with `%s`: %s.\n", other, strings.Join(same[other], ", "))
		}
	}
}

func flagRow(f *kong.Flag) string {
	def := f.Default
	help := strings.TrimSuffix(strings.TrimSuffix(f.Help, "."), " ("+def+")")
	switch {
	case f.IsBool():
		def = "off"
	case def == "":
		def = "none"
	default:
		def = "`" + def + "`"
	}
	name := "--" + f.Name
	if !f.IsBool() {
		name += " " + cmp.Or(f.PlaceHolder, strings.ToUpper(f.Name))
	}
	return fmt.Sprintf("| `%s` | `%s` | %s | %s |\n", name, strings.Join(f.Envs, "`, `"), cell(def), cell(help))
}

// cell is text within a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", `\<`, "\n", " ").Replace(text)
}

// writeMetrics writes what a hub shows from its start on: all metrics, with all values of
// their labels.
func writeMetrics(t *testing.T, b *bytes.Buffer) {
	hub := hubtest.Run(t, hubtest.New(t, "redis://127.0.0.1:1")) // where nothing is
	answer, err := http.Get("http://" + hub.AdminAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	b.WriteString(`
## Metrics

` + "`/metrics`" + ` on the admin listener. Each label value is there from the start, at 0. Beside these are the metrics of the Go runtime, ` + "`go_…`" + `,
and of the process, ` + "`process_…`" + `. What to watch: [operations.md](operations.md#what-to-watch) and [prometheus.md](prometheus.md).

| metric | type | labels | |
|---|---|---|---|
`)
	for _, m := range readMetrics(string(text)) {
		if !strings.HasPrefix(m.name, "usercast_") {
			continue
		}
		var labels []string
		for _, l := range m.labels {
			switch l.name {
			case "le":
			case "feed", "redis", "version", "goversion": // they depend on the hub
				labels = append(labels, "`"+l.name+"`")
			default:
				slices.Sort(l.values)
				labels = append(labels, "`"+l.name+"`: `"+strings.Join(l.values, "`, `")+"`")
			}
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, strings.Join(labels, ", "), cell(strings.TrimSuffix(m.help, ".")))
	}
}

// A metricFamily is what a scrape tells of a metric.
type metricFamily struct {
	name, kind, help string
	labels           []label
}

type label struct {
	name   string
	values []string
}

// readMetrics reads a scrape, as far as values in it need no unescaping.
func readMetrics(text string) (all []*metricFamily) {
	for line := range strings.Lines(text) {
		word := strings.SplitN(strings.TrimSpace(line), " ", 4)
		switch {
		case word[0] == "#" && word[1] == "HELP":
			all = append(all, &metricFamily{name: word[2], help: word[3]})
		case word[0] == "#" && word[1] == "TYPE":
			all[len(all)-1].kind = word[3]
		default:
			_, pairs, ok := strings.Cut(line, "{")
			if !ok {
				continue
			}
			pairs, _, _ = strings.Cut(pairs, "}")
			m := all[len(all)-1]
			for pair := range strings.SplitSeq(pairs, ",") {
				name, value, _ := strings.Cut(pair, "=")
				m.add(name, strings.Trim(value, `"`))
			}
		}
	}
	return all
}

func (m *metricFamily) add(name, value string) {
	i := slices.IndexFunc(m.labels, func(l label) bool { return l.name == name })
	if i < 0 {
		i = len(m.labels)
		m.labels = append(m.labels, label{name: name})
	}
	if !slices.Contains(m.labels[i].values, value) {
		m.labels[i].values = append(m.labels[i].values, value)
	}
}
