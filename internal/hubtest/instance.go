package hubtest

import (
	"fmt"
	"os"
	"testing"

	"usercast/internal/redistest"
)

// An Instance is a place in a deployment: one process after the other serves with the same flags at the same
// addresses.
type Instance struct {
	Redis         *redistest.Server
	Flags         []string
	Public, Admin string   // host:port
	Program       *Program // the newest; nil: none was started
}

// NewInstance chooses the addresses. It starts no process.
func NewInstance(tb testing.TB, server *redistest.Server, flags ...string) *Instance {
	tb.Helper()
	return &Instance{Redis: server, Flags: flags, Public: FreeAddr(tb), Admin: FreeAddr(tb)}
}

// StartInstance is NewInstance, with a process.
func StartInstance(tb testing.TB, server *redistest.Server, flags ...string) *Instance {
	tb.Helper()
	i := NewInstance(tb, server, flags...)
	i.Start(tb)
	return i
}

// FreeAddr returns a host:port that nothing listens on, for a listener that may come back to it.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	return fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(tb))
}

// Start starts a process, and waits until it is ready.
func (i *Instance) Start(tb testing.TB) {
	tb.Helper()
	i.Program, _, _ = Serve(tb, i.Redis, nil, append([]string{"--listen", i.Public, "--admin-listen", i.Admin}, i.Flags...)...)
}

// Stop sends a signal to the process, and waits for its end. It returns the exit status.
func (i *Instance) Stop(tb testing.TB, sig os.Signal) int {
	tb.Helper()
	i.Program.Signal(sig)
	return i.Program.Wait(tb)
}
