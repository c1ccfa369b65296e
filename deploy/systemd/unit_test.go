// Package systemd tests the systemd unit of the hub.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"usercast/internal/need"
)

// analyze runs systemd-analyze.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	program := need.Program(t, "systemd-analyze")
	out, err := exec.Command(program, append(args, "--no-pager")...).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestUnitIsVerified(t *testing.T) {
	unit, err := os.ReadFile("usercast.service")
	if err != nil {
		t.Fatal(err)
	}
	// The program in ExecStart must exist, so it is replaced by the test program.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "usercast.service")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(unit), "/usr/local/bin/usercast", self)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := analyze(t, "verify", "--man=no", path); strings.Contains(out, path) { // warnings do not change the exit status
		t.Error(out)
	}
}

// The scale of systemd-analyze goes from 0 to 10; 10 is a service without hardening. The rest is what the hub
// needs: access to the network, and to any address.
func TestUnitIsHardened(t *testing.T) {
	out := analyze(t, "security", "--offline=true", "--threshold=15", "usercast.service")
	if exposure := regexp.MustCompile(`Overall exposure level for usercast.service: [\d.]+`).FindString(out); exposure == "" {
		t.Error(out)
	} else {
		t.Log(exposure)
	}
}
