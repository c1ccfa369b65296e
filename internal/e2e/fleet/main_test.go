// Package fleet tests several hubs behind a proxy: a rolling restart, pages that move while hubs fail, and, with the tags
// soak and measure, random failures over a longer time, and resource usage.
package fleet

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) { hubtest.Main(m, nil) }
