// Package attack tests what malformed input and hostile clients do to a hub and to the streams of others.
package attack

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) {
	hubtest.Main(m, map[string]func([]string) error{"reference": measureReference})
}
