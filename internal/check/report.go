package check

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize/english"

	"usercast/internal/finding"
)

// A printer prints each finding immediately, or all of them as one JSON object at the end. The text is not colored, and
// its lines are not wrapped, so that commands and directives can be copied. Characters that are not printable are escaped,
// because servers choose parts of the text.
type printer struct {
	out      io.Writer
	asJSON   bool
	sections []*section
	count    map[finding.Level]int
}

type section struct {
	Name     string            `json:"name"`
	Findings []finding.Finding `json:"findings"`
}

func newPrinter(out io.Writer, asJSON bool) *printer {
	return &printer{out: out, asJSON: asJSON, count: make(map[finding.Level]int)}
}

// section begins a section of the report. It returns a function that prints the findings of the section.
func (p *printer) section(name string) finding.Report {
	s := &section{Name: name, Findings: []finding.Finding{}}
	p.sections = append(p.sections, s)
	if !p.asJSON {
		if len(p.sections) > 1 {
			fmt.Fprintln(p.out)
		}
		fmt.Fprintln(p.out, finding.Line(name))
	}
	return func(f finding.Finding) {
		s.Findings = append(s.Findings, f)
		p.count[f.Level]++
		if p.asJSON {
			return
		}
		fmt.Fprintf(p.out, "  %-4s  %s\n", f.Level, finding.Line(f.What))
		for line := range strings.SplitSeq(f.Do, "\n") {
			if line != "" {
				fmt.Fprintf(p.out, "        → %s\n", finding.Line(line))
			}
		}
	}
}

// end prints the totals. It returns an error if something must be fixed.
func (p *printer) end(version string) error {
	failed, warned, noted := p.count[finding.Fail], p.count[finding.Warn], p.count[finding.Note]
	var err error
	if p.asJSON {
		encoder := json.NewEncoder(p.out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false) // <id> stays readable
		err = encoder.Encode(struct {
			OK      bool       `json:"ok"` // nothing must be fixed
			Failed  int        `json:"failed"`
			Warned  int        `json:"warned"`
			Noted   int        `json:"noted"`
			Version string     `json:"version"`
			Parts   []*section `json:"parts"`
		}{failed == 0, failed, warned, noted, version, p.sections})
	} else {
		_, err = fmt.Fprintf(p.out, "\n%d failed, %s, %s\n", failed, english.Plural(warned, "warning", "warnings"), english.Plural(noted, "note", "notes"))
	}
	if err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("check: found %s", english.Plural(failed, "failure", "failures"))
	}
	return nil
}
