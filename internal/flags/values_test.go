package flags

import (
	"math"
	"strconv"
	"testing"
	"time"
)

func TestSumOfDurationsDoesNotOverflow(t *testing.T) {
	for _, test := range []struct {
		durations []time.Duration
		want      time.Duration
	}{
		{nil, 0},
		{[]time.Duration{time.Second, 0, time.Minute}, 61 * time.Second},
		{[]time.Duration{math.MaxInt64 - 1, 1}, math.MaxInt64},
		{[]time.Duration{math.MaxInt64, math.MaxInt64, math.MaxInt64}, math.MaxInt64},
		{[]time.Duration{math.MaxInt64, 10 * time.Second, math.MaxInt64}, math.MaxInt64},
	} {
		if got := Sum(test.durations...); got != test.want {
			t.Errorf("%v: %v, want %v", test.durations, got, test.want)
		}
	}
}

// Values that do not fit are rejected and never truncated: on a 32-bit platform, 5 GiB would become 1 GiB.
func TestSizesThatDoNotFitAreRejected(t *testing.T) {
	for _, test := range []struct {
		text string
		want uint64
		ok   bool
	}{
		{"0", 0, true},
		{"128KiB", 128 << 10, true},
		{"1.5KiB", 1536, true},
		{"2147483647", math.MaxInt32, true},
		{"2GiB", 2 << 30, strconv.IntSize == 64},
		{"5GiB", 5 << 30, strconv.IntSize == 64},
		{"1TiB", 1 << 40, strconv.IntSize == 64},
		{"1025GiB", 0, false},
		{"20EiB", 0, false},
		{"-1", 0, false},
		{"much", 0, false},
	} {
		var s Size
		if err := s.UnmarshalText([]byte(test.text)); err != nil {
			t.Fatal(err)
		}
		if ok := s.err == nil; ok != test.ok || ok && uint64(s.T) != test.want {
			t.Errorf("%s: %d, %v", test.text, s.T, s.err)
		}
	}
}
