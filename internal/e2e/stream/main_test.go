// Package stream tests what clients receive from the whole program: routing, resume, limits, authentication, TLS and HTTP/2.
package stream

import (
	"testing"

	"usercast/internal/hubtest"
)

func TestMain(m *testing.M) { hubtest.Main(m, nil) }
