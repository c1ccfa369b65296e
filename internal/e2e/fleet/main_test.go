// Package fleet tests several hubs: a rolling restart behind a proxy, pages that move while hubs fail, random failures of
// everything, and, with the tag measure, resource usage.
package fleet

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) { hubtest.Main(m, nil) }
