// Package faults tests the whole program while something fails: slow clients, clients that drop off
// without a FIN, Redis, a stalled reader of the log, file descriptors; and while the program stops.
package faults

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) {
	hubtest.Main(m, map[string]func([]string) error{"read": readStream})
}
