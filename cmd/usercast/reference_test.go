package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"usercast/internal/app"
	"usercast/internal/hubtest"
)

var update = flag.Bool("update", false, "write docs/reference.md")

// The reference is generated from the flags of the parser and the metrics of a hub, so no flag or metric can be missing.
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
		t.Errorf("docs/reference.md is out of date; regenerate it:\n\n\tgo test ./cmd/usercast -run TestReferenceIsUpToDate -update\n")
	}
}

func reference(t *testing.T) []byte {
	var b bytes.Buffer
	b.WriteString(`# Reference

All commands, flags and metrics. This page is generated from the code with
` + "`go test ./cmd/usercast -run TestReferenceIsUpToDate -update`" + `; without ` + "`-update`" + `, the test fails if the page is out of date.
[configuration.md](configuration.md) explains how to combine the flags.

Each flag can also be set in the environment, under the name in the second column. The command line takes precedence.
The file of ` + "`--env-file`" + ` applies to flags that are set in neither place.
In the environment, the value of a repeatable flag is a comma-separated list. Exceptions are ` + "`USERCAST_REDIS`, `USERCAST_HEADER`" + `,
` + "`USERCAST_URL` and `USERCAST_ADMIN`" + `, which hold one value.
Durations are written as ` + "`15s` or `2m`" + `, sizes as ` + "`128KiB` or `1MiB`" + `.
`)
	writeCommands(t, &b)
	writeMetrics(t, &b)
	return b.Bytes()
}

// writeCommands writes a section per command. Flags with the same row as in the section of an earlier command are
// only listed by name.
func writeCommands(t *testing.T, b *bytes.Buffer) {
	parser, err := kong.New(new(commands), kong.Name("usercast"), kong.DefaultEnvars("USERCAST"), kong.Vars(app.FlagDefaults))
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]string) // row of a flag → first command with it
	for _, command := range parser.Model.Leaves(true) {
		fmt.Fprintf(b, "\n## `usercast %s`\n\n%s\n", command.Path(), command.Help)
		if len(command.Positional) > 0 {
			b.WriteString("\n| argument | description |\n|---|---|\n")
			for _, p := range command.Positional {
				fmt.Fprintf(b, "| `%s` | %s |\n", p.Summary(), cell(strings.TrimSuffix(p.Help, ".")))
			}
		}
		var rows []string
		same := make(map[string][]string) // earlier command → flags with the same row
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
			b.WriteString("\n| flag | environment | default | description |\n|---|---|---|---|\n" + strings.Join(rows, ""))
		}
		for _, other := range order {
			fmt.Fprintf(b, "\nThe following flags are the same as for `usercast %s`: %s.\n", other, strings.Join(same[other], ", "))
		}
	}
}

// defaultInHelp matches the default at the end of the help text. The parser does not know defaults that the program
// computes.
var defaultInHelp = regexp.MustCompile(` \(default: (.*)\)$`)

func flagRow(f *kong.Flag) string {
	help, def := strings.TrimSuffix(f.Help, "."), f.Default
	if m := defaultInHelp.FindStringSubmatch(help); m != nil {
		help, def = strings.TrimSuffix(help, m[0]), m[1]
	}
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
	return fmt.Sprintf("| `%s` | `%s` | %s | %s |\n", name, strings.Join(f.Envs, "`, `"), def, cell(help))
}

// cell escapes text for a cell of a Markdown table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", `\<`, "\n", " ").Replace(text)
}

// writeMetrics writes a table of the metrics that a hub exports from its start, with all label values.
func writeMetrics(t *testing.T, b *bytes.Buffer) {
	hub := hubtest.Run(t, hubtest.New(t, "redis://127.0.0.1:1")) // no Redis is listening there
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

The admin listener serves these metrics at ` + "`/metrics`" + `. All label values are exported from the start, with the value 0.
The endpoint also exports the metrics of the Go runtime (` + "`go_…`" + `) and of the process (` + "`process_…`" + `).
See [operations.md](operations.md) and [prometheus.md](prometheus.md) for what to monitor.

| metric | type | labels | description |
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
			case "feed", "redis", "version", "goversion": // the values depend on the hub
				labels = append(labels, "`"+l.name+"`")
			default:
				slices.Sort(l.values)
				labels = append(labels, "`"+l.name+"`: `"+strings.Join(l.values, "`, `")+"`")
			}
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, strings.Join(labels, ", "), cell(strings.TrimSuffix(m.help, ".")))
	}
}

// A metricFamily is the description of a metric in a scrape.
type metricFamily struct {
	name, kind, help string
	labels           []label
}

type label struct {
	name   string
	values []string
}

// readMetrics parses a scrape. It does not unescape label values.
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
