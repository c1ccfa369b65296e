// Package attack tests the effect of malformed input and hostile clients on a hub and on other streams.
package attack

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) {
	hubtest.Main(m, map[string]func([]string) error{"reference": measureReference})
}
