package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
)

// A flag's value keeps the error of reading it, so that check can report every
// wrong flag at once; the parser would stop at the first.
type value[T any] struct {
	T   T
	err error
}

type (
	duration struct{ value[time.Duration] }
	size     struct{ value[int] } // bytes: 1048576, 1MiB, 128KiB
	count    struct{ value[int] }
	number   struct{ value[float64] }
	// autoCount is a count, or "auto", which is -1.
	autoCount struct{ value[int] }
	// autoNumber is a number, or "auto", which is -1.
	autoNumber struct{ value[float64] }
)

const auto = -1

func (d *duration) UnmarshalText(text []byte) error {
	if d.T, d.err = time.ParseDuration(string(text)); d.err != nil {
		d.err = fmt.Errorf("%q is not a duration such as 15s or 2m", text)
	}
	return nil
}

func (s *size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	switch {
	case err != nil || n > 1<<40:
		s.err = fmt.Errorf("%q is not a size such as 128KiB or 1MiB", text)
	case n > math.MaxInt:
		s.err = fmt.Errorf("%q is more than this 32-bit program can use; set less than 2GiB", text)
	default:
		s.T = int(n)
	}
	return nil
}

func (c *count) UnmarshalText(text []byte) error {
	if c.T, c.err = strconv.Atoi(string(text)); c.err != nil {
		c.err = fmt.Errorf("%q is not a whole number", text)
	}
	return nil
}

func (c *autoCount) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		c.T = auto
		return nil
	}
	var n count
	n.UnmarshalText(text)
	if c.value = n.value; c.err != nil || c.T < 0 {
		c.err = fmt.Errorf("%q is neither auto nor a whole number", text)
	}
	return nil
}

func (n *number) UnmarshalText(text []byte) error {
	n.T, n.err = strconv.ParseFloat(string(text), 64)
	if n.err != nil || n.T < 0 || n.T > 1e9 {
		n.err = fmt.Errorf("%q is not a number such as 1000 or 0.5", text)
	}
	return nil
}

func (n *autoNumber) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		n.T = auto
		return nil
	}
	var number number
	number.UnmarshalText(text)
	if n.value = number.value; n.err != nil {
		n.err = fmt.Errorf("%q is neither auto nor a number", text)
	}
	return nil
}

// addUp adds durations that are not negative. The sum is at most the longest duration there
// is, 292 years.
func addUp(durations ...time.Duration) (total time.Duration) {
	for _, d := range durations {
		if total += d; total < 0 {
			return math.MaxInt64
		}
	}
	return total
}

// A checker collects what is wrong with the flags.
type checker struct{ faults []error }

// wrong adds a fault of one flag.
func (c *checker) wrong(flag, format string, args ...any) {
	c.faults = append(c.faults, fmt.Errorf("--%s: %w", flag, fmt.Errorf(format, args...)))
}

// read adds err, if any, and reports whether there was none.
func (c *checker) read(flag string, err error) bool {
	if err != nil {
		c.wrong(flag, "%w", err)
	}
	return err == nil
}

// between wants a duration from least to most.
func (c *checker) between(flag string, d duration, least, most time.Duration) {
	if c.read(flag, d.err) && (d.T < least || d.T > most) {
		c.wrong(flag, "must be from %v to %v", least, most)
	}
}

// notNegative wants a duration of 0 or more.
func (c *checker) notNegative(flag string, d duration) {
	if c.read(flag, d.err) && d.T < 0 {
		c.wrong(flag, "must not be negative")
	}
}

// atLeast wants a number of least or more.
func (c *checker) atLeast(flag string, n value[int], least int) {
	if c.read(flag, n.err) && n.T < least {
		c.wrong(flag, "must be %d or more", least)
	}
}

// from wants a number from least to most.
func (c *checker) from(flag string, n value[int], least, most int) {
	if c.read(flag, n.err) && (n.T < least || n.T > most) {
		c.wrong(flag, "must be from %d to %d", least, most)
	}
}

// err is nil or a usageError with all that was found.
func (c *checker) err() error {
	if len(c.faults) == 0 {
		return nil
	}
	return usageError{errors.Join(c.faults...)}
}
