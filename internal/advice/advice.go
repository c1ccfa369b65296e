// Package advice is what usercast check has to say: what was found, how bad that is, and
// what to change.
package advice

import "fmt"

// A Level says how bad a finding is.
type Level int

// From nothing to do, to something that must be mended.
const (
	OK   Level = iota // as it should be
	Note              // worth knowing; nothing is wrong
	Warn              // it works, and will not in some case
	Fail              // must be mended
)

func (l Level) String() string {
	return [...]string{OK: "ok", Note: "note", Warn: "warn", Fail: "fail"}[l]
}

// MarshalText is for JSON.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// A Finding is one thing that was looked at.
type Finding struct {
	Name  string `json:"name"` // the same for the same cause, for scripts
	Level Level  `json:"level"`
	What  string `json:"what"`         // one plain sentence; holds no secret
	Do    string `json:"do,omitempty"` // what to change; a command or a directive where there is one
}

// A Tell hears each finding as soon as it is made.
type Tell func(Finding)

// OK says that something is as it should be.
func (t Tell) OK(name, format string, args ...any) {
	t(Finding{Name: name, Level: OK, What: fmt.Sprintf(format, args...)})
}

// Note says what is worth knowing. Do may be empty, here only.
func (t Tell) Note(name, do, format string, args ...any) {
	t(Finding{Name: name, Level: Note, What: fmt.Sprintf(format, args...), Do: do})
}

// Warn says what will not work in some case, and what to do about it.
func (t Tell) Warn(name, do, format string, args ...any) {
	t(Finding{Name: name, Level: Warn, What: fmt.Sprintf(format, args...), Do: do})
}

// Fail says what must be mended, and how.
func (t Tell) Fail(name, do, format string, args ...any) {
	t(Finding{Name: name, Level: Fail, What: fmt.Sprintf(format, args...), Do: do})
}
