//go:build unix

package hubtest

import (
	"os/exec"
	"strconv"
	"testing"

	"usercast/internal/redistest"
)

// ServeWithDescriptors is Serve with a limit of open file descriptors.
func ServeWithDescriptors(tb testing.TB, server *redistest.Server, limit int, flags ...string) (p *Program, public, admin string) {
	tb.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		tb.Fatal(err)
	}
	args := append([]string{"-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(limit), Build(tb)}, serveArgs(server.URL(), flags)...)
	p = StartProcess(tb, nil, shell, args...)
	public, admin = p.Addresses(tb)
	AwaitReady(tb, admin)
	return p, public, admin
}
