package hubtest

import (
	"cmp"
	"fmt"
	"os"
	"testing"

	"usercast/internal/redistest"
)

// An Instance is a hub of a deployment: a series of processes with the same flags and addresses.
type Instance struct {
	Redis         *redistest.Server
	URL           string // of a relay in front of Redis; "": none
	Flags         []string
	Public, Admin string   // host:port
	Program       *Program // the current or last process; nil before Start
}

// NewInstance chooses the addresses. It does not start a process.
func NewInstance(tb testing.TB, server *redistest.Server, flags ...string) *Instance {
	tb.Helper()
	return &Instance{Redis: server, Flags: flags, Public: FreeAddr(tb), Admin: FreeAddr(tb)}
}

// StartInstance is NewInstance followed by Start.
func StartInstance(tb testing.TB, server *redistest.Server, flags ...string) *Instance {
	tb.Helper()
	i := NewInstance(tb, server, flags...)
	i.Start(tb)
	return i
}

// FreeAddr returns a free host:port, which listeners can use repeatedly.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	return fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(tb))
}

// Start starts a process, and waits until it is ready. Unlike Serve, it does not need a log line with the addresses, so
// it works with every --log-level.
func (i *Instance) Start(tb testing.TB) {
	tb.Helper()
	flags := append([]string{"--listen", i.Public, "--admin-listen", i.Admin}, i.Flags...)
	i.Program = StartProgram(tb, nil, serveArgs(cmp.Or(i.URL, i.Redis.URL()), flags)...)
	AwaitReady(tb, i.Admin)
}

// Stop sends a signal to the process, and waits for its end. It returns the exit status.
func (i *Instance) Stop(tb testing.TB, sig os.Signal) int {
	tb.Helper()
	i.Program.Signal(sig)
	return i.Program.Wait(tb)
}
