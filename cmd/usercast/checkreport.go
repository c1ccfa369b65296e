package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"usercast/internal/advice"
)

// A checkReport is what check prints: each finding as soon as it is made, or all as one JSON
// object at the end. Its text has no colour, and a command or a directive to copy is never broken.
type checkReport struct {
	out    io.Writer
	asJSON bool
	parts  []*checkPart
	count  map[advice.Level]int
}

type checkPart struct {
	Name     string           `json:"name"`
	Findings []advice.Finding `json:"findings"`
}

func newCheckReport(out io.Writer, asJSON bool) *checkReport {
	return &checkReport{out: out, asJSON: asJSON, count: make(map[advice.Level]int)}
}

// part begins a part of the report and returns who hears its findings.
func (r *checkReport) part(name string) advice.Tell {
	p := &checkPart{Name: name, Findings: []advice.Finding{}}
	r.parts = append(r.parts, p)
	if !r.asJSON {
		if len(r.parts) > 1 {
			fmt.Fprintln(r.out)
		}
		fmt.Fprintln(r.out, name)
	}
	return func(f advice.Finding) {
		p.Findings = append(p.Findings, f)
		r.count[f.Level]++
		if r.asJSON {
			return
		}
		fmt.Fprintf(r.out, "  %-4s  %s\n", f.Level, f.What)
		for line := range strings.SplitSeq(f.Do, "\n") {
			if line != "" {
				fmt.Fprintf(r.out, "        → %s\n", line)
			}
		}
	}
}

// end prints the sum, and is an error when something must be mended.
func (r *checkReport) end() error {
	failed, warned, noted := r.count[advice.Fail], r.count[advice.Warn], r.count[advice.Note]
	var err error
	if r.asJSON {
		encoder := json.NewEncoder(r.out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false) // for people: <id>
		err = encoder.Encode(struct {
			OK      bool         `json:"ok"` // nothing must be mended
			Failed  int          `json:"failed"`
			Warned  int          `json:"warned"`
			Noted   int          `json:"noted"`
			Version string       `json:"version"`
			Parts   []*checkPart `json:"parts"`
		}{failed == 0, failed, warned, noted, version(), r.parts})
	} else {
		_, err = fmt.Fprintf(r.out, "\n%d to mend, %s, %s\n", failed, plural(int64(warned), "warning", "warnings"), plural(int64(noted), "note", "notes"))
	}
	if err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("check: %s must be mended", plural(int64(failed), "thing", "things"))
	}
	return nil
}
