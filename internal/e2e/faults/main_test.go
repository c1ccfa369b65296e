// Package faults tests the whole program during failures: slow clients, clients that drop off
// without a FIN, Redis outages, a stalled log, exhausted file descriptors; and while the program stops.
package faults

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) {
	hubtest.Main(m, map[string]func([]string) error{"read": readStream})
}
