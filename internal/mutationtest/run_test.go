//go:build mutations

package mutationtest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// firstFailure matches the first message of a test.
var firstFailure = regexp.MustCompile(`\w+_test\.go:\d+: [^\n]*(\n[^\n]*seeds failed)?`)

// Runs the test of each mutation, which must fail.
func TestMutationsAreFound(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file, overlay := filepath.Join(dir, "mutated.go"), filepath.Join(dir, "overlay.json")
			original, err := filepath.Abs(filepath.Join(root, m.file))
			if err != nil {
				t.Fatal(err)
			}
			list, err := json.Marshal(map[string]any{"Replace": map[string]string{original: file}})
			if err != nil {
				t.Fatal(err)
			}
			for name, text := range map[string][]byte{file: m.apply(t), overlay: list} {
				if err := os.WriteFile(name, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command("go", "test", "-overlay", overlay, "-vet=off", "-count=1", "-run", "^"+m.test+"$", "./"+m.pkg)
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "SIM_CLASS="+m.class, "SIM_SEEDS=1000")
			out, err := cmd.CombinedOutput()
			switch text := string(out); {
			case err == nil:
				t.Errorf("%s passes", m.test)
			case !strings.Contains(text, "--- FAIL: "+m.test):
				t.Errorf("%s did not run: %s", m.test, text)
			default:
				t.Log(firstFailure.FindString(text))
			}
		})
	}
}
