// Package fleet tests several hubs behind a proxy: a rolling restart, and, with the tags soak and measure, random
// failures and resource usage.
package fleet

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) { hubtest.Main(m, nil) }
