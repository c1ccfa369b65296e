package main

import (
	"net"
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	h := hubtest.Run(t, hubtest.New(t, server.URL()))
	health := func() (int, string, string) { return runCommand("", "health", "--admin-listen", h.AdminAddr()) }

	code, stdout, stderr := health()
	if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, h.AdminAddr()+" is not ready") {
		t.Errorf("before the first subscription: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	server.Restart()
	h.AwaitReady(t)
	code, stdout, stderr = health()
	if code != 0 || stderr != "" || stdout != "ready\n" {
		t.Errorf("ready: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	_, port, _ := net.SplitHostPort(h.AdminAddr())
	if code, _, stderr := runCommand("", "health", "--admin-listen", ":"+port); code != 0 {
		t.Errorf("an address without a host: exit code %d, %q", code, stderr)
	}
	h.Interrupt()
	h.Wait(t)
	code, stdout, stderr = health()
	if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "no response from "+h.AdminAddr()) {
		t.Errorf("no listener: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
