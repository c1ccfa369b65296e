package inspect

import "testing"

func TestAdviceDoesNotLowerABufferLimit(t *testing.T) {
	wanted := bufferLimit{32 << 20, 8 << 20, 60}
	for before, after := range map[bufferLimit]bufferLimit{
		{1 << 20, 1 << 20, 10}:   wanted,
		{256 << 20, 1 << 20, 60}: {256 << 20, 8 << 20, 60},
		{0, 1 << 20, 120}:        {0, 8 << 20, 120},
		{1 << 20, 0, 0}:          {32 << 20, 0, 60},
	} {
		if got := before.raisedTo(wanted); got != after {
			t.Errorf("%v: %v, want %v", before, got, after)
		}
	}
}
