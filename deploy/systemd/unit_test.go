// Package systemd tests the systemd units of the hub.
package systemd

import (
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/need"
	"usercast/internal/redistest"
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

// units are the unit of a single hub, and the template of several.
var units = []string{"usercast.service", "usercast@.service"}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestUnitIsVerified(t *testing.T) {
	// The program in ExecStart must exist, so it is replaced by the test program.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range units {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(read(t, name), "/usr/local/bin/usercast", self)), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := analyze(t, "verify", "--man=no", path); strings.Contains(out, path) { // warnings do not change the exit status
			t.Error(out)
		}
	}
}

// The scale of systemd-analyze goes from 0 to 10; 10 is a service without hardening. The rest is what the hub
// needs: access to the network, and to any address.
func TestUnitIsHardened(t *testing.T) {
	for _, name := range units {
		out := analyze(t, "security", "--offline=true", "--threshold=15", name)
		if exposure := regexp.MustCompile(`Overall exposure level for usercast@?i?.service: [\d.]+`).FindString(out); exposure == "" {
			t.Error(out)
		} else {
			t.Log(exposure)
		}
	}
}

// The template differs from the unit of a single hub only in the flags, the description, the time until a restart and
// the comments.
func TestTemplateIsTheUnitWithOtherFlags(t *testing.T) {
	lines := func(name string) (all []string) {
		for line := range strings.Lines(read(t, name)) {
			if name, _, _ := strings.Cut(line, "="); line[0] != '#' && !slices.Contains([]string{"Description", "ExecStart", "RestartSec"}, name) {
				all = append(all, line)
			}
		}
		return all
	}
	if !slices.Equal(lines(units[0]), lines(units[1])) {
		t.Errorf("%s and %s differ in other lines than those", units[0], units[1])
	}
}

// Two instances of the template run on one host with the same settings.
func TestTwoInstancesStart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	settings := filepath.Join(t.TempDir(), "usercast.env")
	if err := os.WriteFile(settings, []byte("USERCAST_AUTH=insecure\nUSERCAST_REDIS="+server.URL()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/usercast (.*)$`).FindStringSubmatch(read(t, units[1]))
	if start == nil {
		t.Fatal("the template has no ExecStart=")
	}
	var admins []string
	for range 2 {
		port := fourDigitPort(t)
		args := strings.NewReplacer("/etc/usercast/usercast.env", settings, "%i", port, "%H", "host").Replace(start[1])
		hubtest.StartProgram(t, nil, strings.Fields(args)...)
		hubtest.AwaitReady(t, "127.0.0.1:"+port)
		admins = append(admins, "127.0.0.1:1"+port)
	}
	for _, admin := range admins {
		hubtest.AwaitReady(t, admin)
	}
}

// fourDigitPort returns a free port whose port with a 1 before it is free, too.
func fourDigitPort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := strconv.Itoa(2000 + rand.IntN(8000))
		if free(port) && free("1"+port) {
			return port
		}
	}
	t.Fatal("no free port has four digits")
	return ""
}

func free(port string) bool {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return false
	}
	l.Close()
	return true
}
