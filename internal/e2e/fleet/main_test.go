// Package fleet tests several hubs behind a proxy: a deploy, and, with the tags soak and measure, random faults and costs.
package fleet

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) { hubtest.Main(m, nil) }
