// Package browser tests pages and the console in real browsers.
package browser

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) { hubtest.Main(m, nil) }
