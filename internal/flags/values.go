package flags

import (
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

// A value keeps its parse error, so that Errors can report all invalid flags at once. The parser would stop at the first.
type value[T any] struct {
	T   T
	err error
}

func (v value[T]) parsed() (T, error) { return v.T, v.err }

// Err returns the parse error of the value.
func (v value[T]) Err() error { return v.err }

// Types of flags. The field T holds the value.
type (
	Duration struct{ value[time.Duration] }
	Size     struct{ value[int] } // bytes: 1048576, 1MiB, 128KiB
	Count    struct{ value[int] }
	Number   struct{ value[float64] }
	Char     struct{ value[byte] } // one ASCII character
	// AutoCount is a count or "auto", which is stored as Auto.
	AutoCount struct{ value[int] }
	// AutoNumber is a number or "auto", which is stored as Auto.
	AutoNumber struct{ value[float64] }
)

// Auto is the value of an AutoCount or AutoNumber that is set to "auto".
const Auto = -1

func (d *Duration) UnmarshalText(text []byte) error {
	if d.T, d.err = time.ParseDuration(string(text)); d.err != nil {
		d.err = fmt.Errorf("invalid duration %q; use a value such as 15s or 2m", text)
	}
	return nil
}

func (s *Size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	switch {
	case err != nil || n > 1<<40:
		s.err = fmt.Errorf("invalid size %q; use a value such as 128KiB or 1MiB", text)
	case n > math.MaxInt:
		s.err = fmt.Errorf("%q is too large for this 32-bit program; use less than 2GiB", text)
	default:
		s.T = int(n)
	}
	return nil
}

func (c *Count) UnmarshalText(text []byte) error {
	if c.T, c.err = strconv.Atoi(string(text)); c.err != nil {
		c.err = fmt.Errorf("invalid number %q; use a whole number", text)
	}
	return nil
}

func (c *AutoCount) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		c.T = Auto
		return nil
	}
	var n Count
	n.UnmarshalText(text)
	if c.value = n.value; c.err != nil || c.T < 0 {
		c.err = fmt.Errorf("invalid value %q; use auto or a whole number", text)
	}
	return nil
}

func (n *Number) UnmarshalText(text []byte) error {
	n.T, n.err = strconv.ParseFloat(string(text), 64)
	if n.err != nil || n.T < 0 || n.T > 1e9 {
		n.err = fmt.Errorf("invalid number %q; use a value such as 1000 or 0.5", text)
	}
	return nil
}

func (c *Char) UnmarshalText(text []byte) error {
	if len(text) != 1 || text[0] > unicode.MaxASCII {
		c.err = fmt.Errorf("%q is not one ASCII character; use a value such as : or /", text)
		return nil
	}
	c.T = text[0]
	return nil
}

func (n *AutoNumber) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		n.T = Auto
		return nil
	}
	var number Number
	number.UnmarshalText(text)
	if n.value = number.value; n.err != nil {
		n.err = fmt.Errorf("invalid value %q; use auto or a number", text)
	}
	return nil
}

// Sum adds durations that are not negative. If the sum overflows, it returns the longest possible duration, 292 years.
func Sum(durations ...time.Duration) (total time.Duration) {
	for _, d := range durations {
		if total += d; total < 0 {
			return math.MaxInt64
		}
	}
	return total
}
