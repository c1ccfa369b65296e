// Package cli tests the program as its users start it: environment, signals, reloading, secrets and the dev command.
package cli

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) { hubtest.Main(m, nil) }
