// Package finding defines a result of usercast check: what was found, its severity, and what to
// change.
package finding

import "fmt"

// A Level is the severity of a finding.
type Level int

// The levels, in order of severity.
const (
	OK   Level = iota // as it should be
	Note              // information; nothing to fix
	Warn              // works now, fails in some situation
	Fail              // must be fixed
)

func (l Level) String() string {
	return [...]string{OK: "ok", Note: "note", Warn: "warn", Fail: "fail"}[l]
}

// MarshalText is for JSON.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// A Finding is the result of one check.
type Finding struct {
	Name  string `json:"name"` // the same for the same cause, for scripts
	Level Level  `json:"level"`
	What  string `json:"what"`         // one plain sentence without secrets
	Do    string `json:"do,omitempty"` // what to change; a command or a directive where there is one
}

// A Report receives each finding as soon as it is made.
type Report func(Finding)

// OK reports something that is as it should be.
func (r Report) OK(name, format string, args ...any) {
	r(Finding{Name: name, Level: OK, What: fmt.Sprintf(format, args...)})
}

// Note reports what is worth knowing. Only here, do may be empty.
func (r Report) Note(name, do, format string, args ...any) {
	r(Finding{Name: name, Level: Note, What: fmt.Sprintf(format, args...), Do: do})
}

// Warn reports what will not work in some case, and what to do about it.
func (r Report) Warn(name, do, format string, args ...any) {
	r(Finding{Name: name, Level: Warn, What: fmt.Sprintf(format, args...), Do: do})
}

// Fail reports what must be fixed, and how.
func (r Report) Fail(name, do, format string, args ...any) {
	r(Finding{Name: name, Level: Fail, What: fmt.Sprintf(format, args...), Do: do})
}
