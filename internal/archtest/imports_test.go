// Package archtest tests which packages import which.
package archtest

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowedDeps lists what each package of this module may import, directly or indirectly. Packages that are not listed
// may import anything: cmd and internal/app connect all packages, and test helpers are imported only by tests.
var allowedDeps = map[string]struct {
	ours  []string // packages of this module
	other bool     // modules in addition to the standard library
}{
	"usercast/hub":                     {ours: []string{"usercast/internal/revocation"}},
	"usercast/auth":                    {ours: []string{"usercast/internal/revocation", "usercast/internal/unixsocket"}, other: true},
	"usercast/internal/histogram":      {},
	"usercast/internal/logqueue":       {},
	"usercast/internal/netpoll":        {other: true},
	"usercast/internal/finding":        {},
	"usercast/internal/eventstream":    {},
	"usercast/internal/load":           {other: true},
	"usercast/transport/redis":         {ours: []string{"usercast/hub", "usercast/internal/histogram", "usercast/internal/netpoll", "usercast/internal/revocation", "usercast/transport/redis/internal/acl", "usercast/transport/redis/internal/fleet", "usercast/transport/redis/internal/lease", "usercast/transport/redis/internal/pause", "usercast/transport/redis/internal/resp", "usercast/transport/redis/internal/topology"}, other: true},
	"usercast/transport/redis/inspect": {ours: []string{"usercast/internal/finding", "usercast/transport/redis", "usercast/hub", "usercast/internal/histogram", "usercast/internal/netpoll", "usercast/internal/revocation", "usercast/transport/redis/internal/acl", "usercast/transport/redis/internal/fleet", "usercast/transport/redis/internal/lease", "usercast/transport/redis/internal/pause", "usercast/transport/redis/internal/resp", "usercast/transport/redis/internal/topology"}, other: true},

	// The simulation and its oracle share no code with the hub.
	"usercast/transport/redis/internal/fleetsim": {},
	"usercast/transport/redis/internal/resp":     {},
	"usercast/transport/redis/internal/pause":    {},
	"usercast/transport/redis/internal/acl":      {other: true},
	"usercast/transport/redis/internal/fleet":    {ours: []string{"usercast/hub", "usercast/internal/revocation"}},
	"usercast/transport/redis/internal/lease":    {ours: []string{"usercast/internal/netpoll", "usercast/transport/redis/internal/acl", "usercast/transport/redis/internal/pause", "usercast/transport/redis/internal/resp", "usercast/transport/redis/internal/topology"}, other: true},
	"usercast/transport/redis/internal/topology": {ours: []string{"usercast/internal/netpoll", "usercast/transport/redis/internal/acl", "usercast/transport/redis/internal/pause", "usercast/transport/redis/internal/resp"}, other: true},
	"usercast/transport/sse/echosse":             {ours: []string{"usercast/internal/unixsocket", "usercast/hub", "usercast/auth", "usercast/internal/histogram", "usercast/internal/loopback", "usercast/internal/netpoll", "usercast/internal/revocation", "usercast/transport/sse"}, other: true},
	"usercast/transport/sse":                     {ours: []string{"usercast/internal/unixsocket", "usercast/hub", "usercast/auth", "usercast/internal/histogram", "usercast/internal/loopback", "usercast/internal/netpoll", "usercast/internal/revocation"}, other: true},
	"usercast/internal/loopback":                 {},
	"usercast/internal/unixsocket":               {},
	"usercast/internal/envfile":                  {},
	"usercast/internal/flags":                    {ours: []string{"usercast/internal/unixsocket", "usercast/internal/envfile"}, other: true},
	"usercast/internal/systemd":                  {other: true},
	"usercast/internal/revocation":               {},
	"usercast/transport/admin":                   {ours: []string{"usercast/hub", "usercast/internal/revocation", "usercast/internal/unixsocket", "usercast/internal/loopback", "usercast/transport/admin/console"}, other: true},
	"usercast/transport/admin/console":           {},
	"usercast/bench/plot":                        {},
	"usercast/bench/internal/process":            {},

	"usercast/internal/check/proxypath": {ours: []string{"usercast/internal/finding", "usercast/internal/eventstream", "usercast/internal/loopback"}},

	"usercast/metrics": {ours: []string{
		"usercast/internal/unixsocket", "usercast/hub", "usercast/auth", "usercast/internal/histogram", "usercast/internal/loopback", "usercast/internal/netpoll", "usercast/internal/revocation", "usercast/transport/redis", "usercast/transport/sse",
		"usercast/transport/redis/internal/acl", "usercast/transport/redis/internal/fleet", "usercast/transport/redis/internal/lease", "usercast/transport/redis/internal/pause", "usercast/transport/redis/internal/resp", "usercast/transport/redis/internal/topology",
	}, other: true},
}

// importers lists the packages of this module that may import a library directly.
var importers = map[string][]string{
	"github.com/redis/go-redis/":      {"usercast/transport/redis", "usercast/transport/redis/inspect", "usercast/transport/redis/internal/acl", "usercast/transport/redis/internal/lease", "usercast/transport/redis/internal/topology", "usercast/internal/redistest", "usercast/bench/baseline", "usercast/examples/go"},
	"github.com/prometheus/":          {"usercast/metrics", "usercast/internal/app", "usercast/bench/baseline", "usercast/bench/lowerbound"},
	"github.com/alecthomas/kong":      {"usercast/cmd/usercast", "usercast/internal/flags", "usercast/internal/hubtest"},
	"github.com/coreos/go-systemd/":   {"usercast/internal/systemd"},
	"github.com/alicebob/miniredis/":  {"usercast/cmd/usercast"},
	"github.com/HdrHistogram/":        {"usercast/internal/load"},
	"github.com/schollz/progressbar/": {"usercast/internal/bench"},
	"github.com/golang-jwt/":          {"usercast/auth"},
	"github.com/MicahParks/jwkset":    {"usercast/auth"},
	"github.com/labstack/echo/":       {"usercast/transport/sse/echosse", "usercast/transport/admin", "usercast/internal/app", "usercast/cmd/usercast"},
	"unsafe":                          {"usercast/internal/netpoll"},
	"usercast/cmd/":                   {},
}

func TestPackagesImportOnlyWhatIsAllowed(t *testing.T) {
	for pkg, allowed := range allowedDeps {
		for _, dep := range list(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg) {
			ours := dep == "usercast" || strings.HasPrefix(dep, "usercast/")
			switch {
			case dep == pkg:
			case ours && !slices.Contains(allowed.ours, dep):
				t.Errorf("%s depends on %s", pkg, dep)
			case !ours && !allowed.other:
				t.Errorf("%s depends on %s and should need the standard library only", pkg, dep)
			}
		}
	}
}

func TestLibrariesAreImportedOnlyWhereAllowed(t *testing.T) {
	for _, line := range list(t, "-f", "{{$p := .ImportPath}}{{range .Imports}}{{$p}} {{.}}\n{{end}}", "usercast/...") {
		pkg, dep, _ := strings.Cut(line, " ")
		for module, packages := range importers {
			if strings.HasPrefix(dep, module) && !slices.Contains(packages, pkg) {
				t.Errorf("%s imports %s, which only %v may import", pkg, dep, packages)
			}
		}
	}
}

// list runs go list and returns its lines.
func list(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	lines := strings.Fields(strings.ReplaceAll(string(out), " ", "\x00"))
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], "\x00", " ")
	}
	if len(lines) == 0 {
		t.Fatalf("go list %v printed nothing", args)
	}
	return lines
}
