// Package faults tests the whole program while something fails: slow and vanished clients, Redis, the reader of the log, file
// descriptors, and while it stops.
package faults

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) {
	hubtest.Main(m, map[string]func([]string) error{"read": readStream})
}
