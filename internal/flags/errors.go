package flags

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A UsageError is a mistake in the flags. It may join several errors, one per flag.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }
func (e UsageError) Unwrap() error { return e.Err }

// Errors collects the errors of all flags.
type Errors struct{ list []error }

// Add adds an error about one flag.
func (e *Errors) Add(flag, format string, args ...any) {
	e.AddError(fmt.Errorf("--%s: %w", flag, fmt.Errorf(format, args...)))
}

// AddError adds an error that is not about one flag.
func (e *Errors) AddError(err error) { e.list = append(e.list, err) }

// Check adds err unless it is nil, and reports whether it is nil.
func (e *Errors) Check(flag string, err error) bool {
	if err != nil {
		e.Add(flag, "%w", err)
	}
	return err == nil
}

// Between adds an error unless the duration is between least and most, inclusive.
func (e *Errors) Between(flag string, value Duration, least, most time.Duration) {
	if e.Check(flag, value.err) && (value.T < least || value.T > most) {
		e.Add(flag, "must be between %s and %s", short(least), short(most))
	}
}

// short formats a duration without zero minutes and seconds: 1h instead of 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// NotNegative adds an error for a negative duration.
func (e *Errors) NotNegative(flag string, value Duration) {
	if e.Check(flag, value.err) && value.T < 0 {
		e.Add(flag, "must not be negative")
	}
}

// Positive adds an error unless the duration is greater than 0.
func (e *Errors) Positive(flag string, value Duration) {
	if e.Check(flag, value.err) && value.T <= 0 {
		e.Add(flag, "must be greater than 0")
	}
}

// A whole is a Size, Count or AutoCount.
type whole interface{ parsed() (int, error) }

// AtLeast adds an error for a number less than least, and reports whether there was none.
func (e *Errors) AtLeast(flag string, value whole, least int) bool {
	n, err := value.parsed()
	if !e.Check(flag, err) {
		return false
	}
	if n < least {
		e.Add(flag, "must be at least %d", least)
	}
	return n >= least
}

// Within adds an error unless the number is between least and most, inclusive.
func (e *Errors) Within(flag string, value whole, least, most int) {
	if n, err := value.parsed(); e.Check(flag, err) && (n < least || n > most) {
		e.Add(flag, "must be between %d and %d", least, most)
	}
}

// SizeWithin adds an error unless the size is between least and most, inclusive.
func (e *Errors) SizeWithin(flag string, value Size, least, most int) {
	if n, err := value.parsed(); e.Check(flag, err) && (n < least || n > most) {
		e.Add(flag, "must be between %s and %s", formatSize(least), formatSize(most))
	}
}

// formatSize formats a size as flags accept it, such as 4KiB.
func formatSize(n int) string {
	for i, unit := range []string{"GiB", "MiB", "KiB"} {
		if size := 1 << (30 - 10*i); n >= size && n%size == 0 {
			return strconv.Itoa(n/size) + unit
		}
	}
	return strconv.Itoa(n) + " bytes"
}

// List returns the added errors.
func (e *Errors) List() []error { return e.list }

// Err returns a UsageError with all added errors, or nil.
func (e *Errors) Err() error {
	if len(e.list) == 0 {
		return nil
	}
	return UsageError{errors.Join(e.list...)}
}
