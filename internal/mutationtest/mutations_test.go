// Package mutationtest proves that tests fail when a rule is taken out of the code. Each mutation changes a few lines, and
// names a test that must fail then. The changed file replaces the original only for the compiler (go test -overlay).
// make mutations runs all of them; the tests without a tag check that the list fits the code.
package mutationtest

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A mutation is a change that a test must find.
type mutation struct {
	name     string
	file     string // below the root of the module
	old, new string // old occurs exactly once
	pkg      string // of the test, below the root of the module
	test     string // its name, or a function with its subtests
	class    string // of the simulation; "": another test
}

// simulated returns a mutation that the simulation of a class must find.
func simulated(class, name, file, old, new string) mutation {
	return mutation{name, file, old, new, "transport/redis/internal/fleetsim", "TestPagesReceiveEachMessageOrAJustifiedGap", class}
}

var mutations = []mutation{
	simulated("clean", "R6: a hub that is behind reports unknown-id without a PING", "hub/history_user.go",
		"if h.waiting.wake != nil && (state == placeUnknownMarker || state == placeAhead) {", "if false {"),
	simulated("replica", "R3: markers count for every run_id", "transport/redis/internal/fleet/member.go",
		"return mk.RunID == m.runID && m.runID != \"\"", "return true"),
	simulated("faults", "R3: markers count for all patterns", "transport/redis/internal/fleet/member.go",
		"m.isSameServer(mk) && slices.Equal(mk.Patterns, m.patterns)", "m.isSameServer(mk)"),
	simulated("faults", "R4: ids are valid beyond the end of their generation", "hub/marker.go",
		"\tt.gen.end = messages\n", ""),
	simulated("clean", "R18: bye has the position at which it is written", "hub/client_take.go",
		"return c.end.newest", "return c.hub.seq.newest"),
	simulated("limits", "R16: a replay ignores what the ring has dropped", "hub/ring.go",
		"\tr.lowWater = max(r.lowWater, s.newest)\n", ""),
}

const root = "../.."

// apply returns the file with the change.
func (m *mutation) apply(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		t.Fatalf("%s contains %d times, want 1: %s", m.file, n, m.old)
	}
	return []byte(strings.Replace(string(text), m.old, m.new, 1))
}

func TestMutationsFitTheCode(t *testing.T) {
	t.Parallel()
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			if _, err := parser.ParseFile(token.NewFileSet(), m.file, m.apply(t), 0); err != nil {
				t.Error(err)
			}
			files, _ := filepath.Glob(filepath.Join(root, m.pkg, "*_test.go"))
			function := regexp.MustCompile(`(?m)^func ` + m.test + `\(t \*testing\.T\)`)
			for _, file := range files {
				if text, err := os.ReadFile(file); err == nil && function.Match(text) {
					return
				}
			}
			t.Errorf("%s has no test %s", m.pkg, m.test)
		})
	}
}
