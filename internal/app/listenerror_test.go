package app

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// With a socket unit, the service manager already listens on the port.
func TestPortInUseNamesTheSocketOfTheServiceManager(t *testing.T) {
	const want = "set --listen systemd"
	for pid, named := range map[string]bool{"": false, "1": false, strconv.Itoa(os.Getpid()): true} {
		t.Setenv("LISTEN_PID", pid)
		for flag, named := range map[string]bool{"listen": named, "admin-listen": false} {
			if err := ListenError(flag, "127.0.0.1:8080", syscall.EADDRINUSE); strings.Contains(err.Error(), want) != named {
				t.Errorf("LISTEN_PID=%s, --%s: %v", pid, flag, err)
			}
		}
	}
}
