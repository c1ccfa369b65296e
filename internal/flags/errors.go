package flags

import (
	"errors"
	"fmt"
	"time"
)

// A UsageError is for the user to correct on the command line. Joined errors are one per flag.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }
func (e UsageError) Unwrap() error { return e.Err }

// Errors collects what is wrong with the flags.
type Errors struct{ list []error }

// Add adds an error of one flag.
func (e *Errors) Add(flag, format string, args ...any) {
	e.AddError(fmt.Errorf("--%s: %w", flag, fmt.Errorf(format, args...)))
}

// AddError adds an error that is not of one flag.
func (e *Errors) AddError(err error) { e.list = append(e.list, err) }

// Check adds err, if any, and reports whether there was none.
func (e *Errors) Check(flag string, err error) bool {
	if err != nil {
		e.Add(flag, "%w", err)
	}
	return err == nil
}

// Between requires a duration from least to most.
func (e *Errors) Between(flag string, value Duration, least, most time.Duration) {
	if e.Check(flag, value.err) && (value.T < least || value.T > most) {
		e.Add(flag, "must be from %v to %v", least, most)
	}
}

// NotNegative requires a duration of 0 or more.
func (e *Errors) NotNegative(flag string, value Duration) {
	if e.Check(flag, value.err) && value.T < 0 {
		e.Add(flag, "must not be negative")
	}
}

// Positive requires a duration of more than 0.
func (e *Errors) Positive(flag string, value Duration) {
	if e.Check(flag, value.err) && value.T <= 0 {
		e.Add(flag, "must be more than 0")
	}
}

// A whole is a Size, Count or AutoCount.
type whole interface{ parsed() (int, error) }

// AtLeast requires a number of least or more.
func (e *Errors) AtLeast(flag string, value whole, least int) {
	if n, err := value.parsed(); e.Check(flag, err) && n < least {
		e.Add(flag, "must be %d or more", least)
	}
}

// Within requires a number from least to most.
func (e *Errors) Within(flag string, value whole, least, most int) {
	if n, err := value.parsed(); e.Check(flag, err) && (n < least || n > most) {
		e.Add(flag, "must be from %d to %d", least, most)
	}
}

// List is what was added.
func (e *Errors) List() []error { return e.list }

// Err is nil or a UsageError with all that was added.
func (e *Errors) Err() error {
	if len(e.list) == 0 {
		return nil
	}
	return UsageError{errors.Join(e.list...)}
}
