// Package finding defines the result of one check of the command check: an observation, its severity, and what to
// change.
package finding

import "fmt"

// A Level is the severity of a finding.
type Level int

// The levels, in order of severity.
const (
	OK   Level = iota // works as intended
	Note              // information; nothing to fix
	Warn              // works now, fails in some situations
	Fail              // must be fixed
)

func (l Level) String() string {
	return [...]string{OK: "ok", Note: "note", Warn: "warn", Fail: "fail"}[l]
}

// MarshalText returns the name of the level, for JSON.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// A Finding is the result of one check.
type Finding struct {
	Name  string `json:"name"` // stable, for scripts
	Level Level  `json:"level"`
	What  string `json:"what"`         // one plain sentence without secrets
	Do    string `json:"do,omitempty"` // what to change: an instruction, a command or a directive
}

// A Report receives each finding as soon as it is made.
type Report func(Finding)

// OK reports something that works as intended.
func (r Report) OK(name, format string, args ...any) {
	r(Finding{Name: name, Level: OK, What: fmt.Sprintf(format, args...)})
}

// Note reports information. do may be empty; for Warn and Fail it is required.
func (r Report) Note(name, do, format string, args ...any) {
	r(Finding{Name: name, Level: Note, What: fmt.Sprintf(format, args...), Do: do})
}

// Warn reports something that fails in some situations, and what to do about it.
func (r Report) Warn(name, do, format string, args ...any) {
	r(Finding{Name: name, Level: Warn, What: fmt.Sprintf(format, args...), Do: do})
}

// Fail reports something that must be fixed, and how to fix it.
func (r Report) Fail(name, do, format string, args ...any) {
	r(Finding{Name: name, Level: Fail, What: fmt.Sprintf(format, args...), Do: do})
}
