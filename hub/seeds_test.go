package hub_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// runSeeds runs a model test with n random seeds, with a tenth of them in short mode, or with the number in the
// environment variable HUB_SEEDS. Each runs in a synctest bubble, and as many run in parallel as there are
// processors. A failing run is identified by its seed.
func runSeeds(t *testing.T, n int, run func(t *testing.T, seed uint64)) {
	if testing.Short() {
		n /= 10
	}
	if text := os.Getenv("HUB_SEEDS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	t.Parallel()
	var failed atomic.Bool
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		t.Run(fmt.Sprint("worker ", worker), func(t *testing.T) {
			t.Parallel()
			for range n / workers {
				if seed := rand.Uint64(); !failed.Load() && !runSeed(t, seed, run) {
					failed.Store(true)
				}
			}
		})
	}
}

func runSeed(t *testing.T, seed uint64, run func(t *testing.T, seed uint64)) bool {
	return t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { run(t, seed) })
	})
}
