package fleetsim_test

import (
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"usercast/transport/redis/internal/fleetsim"
)

// Runs each class of the simulation with many seeds. SIM_SEEDS sets their number, SIM_FIRST the first one, and
// SIM_CLASS the name of the only class. A failing run is repeated to print its story. See make simulate.
func TestPagesReceiveEachMessageOrAJustifiedGap(t *testing.T) {
	t.Parallel()
	most := 30
	if testing.Short() {
		most = 4
	}
	seeds, first := number(t, "SIM_SEEDS", most), number(t, "SIM_FIRST", 1)
	for _, class := range fleetsim.Classes {
		if name := os.Getenv("SIM_CLASS"); name == "" || name == class.Name {
			t.Run(class.Name, func(t *testing.T) {
				t.Parallel()
				runClass(t, class, uint64(first), seeds)
			})
		}
	}
}

func number(t *testing.T, variable string, otherwise int) int {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// runClass runs seeds in parallel, and prints the shortest failing run.
func runClass(t *testing.T, class fleetsim.Class, first uint64, seeds int) {
	var (
		next     atomic.Int64
		mu       sync.Mutex
		sum      = fleetsim.Result{Gaps: make(map[string]int)}
		failures = make(map[uint64]fleetsim.Result)
	)
	t.Run("workers", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for n := next.Add(1); n <= int64(seeds); n = next.Add(1) {
					seed := first + uint64(n) - 1
					r := run(t, class, seed, false)
					mu.Lock()
					sum.Messages += r.Messages
					sum.Resumes += r.Resumes
					sum.Moves += r.Moves
					sum.Unknown += r.Unknown
					sum.GroupMessages += r.GroupMessages
					sum.Joined += r.Joined
					sum.Unnoticed = max(sum.Unnoticed, r.Unnoticed)
					for reason, n := range r.Gaps {
						sum.Gaps[reason] += n
					}
					if len(r.Violations) > 0 {
						failures[seed] = r
					}
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d seeds from %d: %d messages, %d resumes, %d of them at another hub, %d of those unknown; %d messages of groups received, %d due from before their page joined; gaps %v; a loss was noticed after %v at most",
		seeds, first, sum.Messages, sum.Resumes, sum.Moves, sum.Unknown, sum.GroupMessages, sum.Joined, sum.Gaps, sum.Unnoticed)
	if class.Name == "clean" && sum.Unknown*5 > sum.Moves {
		t.Error("most pages should resume at another hub")
	}
	if sum.Unnoticed > 45*time.Second {
		t.Error("a loss must be noticed within 45 s")
	}
	if len(failures) == 0 {
		return
	}
	list := slices.SortedFunc(maps.Keys(failures), func(a, b uint64) int { return failures[a].Events - failures[b].Events })
	for _, seed := range list[:min(len(list), 20)] {
		t.Errorf("SIM_CLASS=%s SIM_SEEDS=1 SIM_FIRST=%d: %s", class.Name, seed, failures[seed].Violations[0])
	}
	t.Errorf("%d of %d seeds failed; the shortest run:\n%s", len(list), seeds, strings.Join(run(t, class, list[0], true).Story, "\n"))
}

// run runs one seed in a bubble, where time passes only while all goroutines wait.
func run(t *testing.T, class fleetsim.Class, seed uint64, trace bool) (r fleetsim.Result) {
	synctest.Test(t, func(*testing.T) { r = fleetsim.Run(seed, class, trace, startNode) })
	return r
}

func TestSeedDeterminesTheRun(t *testing.T) {
	t.Parallel()
	for _, class := range fleetsim.Classes {
		one, other := run(t, class, 7, true), run(t, class, 7, true)
		if len(one.Story) < 100 {
			t.Errorf("%s: %d lines", class.Name, len(one.Story))
		}
		for i, line := range one.Story {
			if i >= len(other.Story) || line != other.Story[i] {
				t.Fatalf("%s: the second run differs after\n%s\nnext: %q", class.Name, strings.Join(one.Story[max(0, i-20):i+1], "\n"), other.Story[i:i+1])
			}
		}
	}
}
