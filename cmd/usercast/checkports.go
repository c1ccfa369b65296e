package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"usercast/internal/advice"
	"usercast/internal/app"
	"usercast/internal/flags"
)

// ports tells whether the hub could listen, or already does.
func (c *checkCmd) ports(tell advice.Tell) {
	c.port(tell, "listen", c.Listen, c.Scheme())
	c.port(tell, "admin-listen", c.AdminListen, "http")
}

func (c *checkCmd) port(tell advice.Tell, flag, address, scheme string) {
	if strings.HasSuffix(address, ":0") {
		return // whichever is free
	}
	listener, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		_ = listener.Close()
		tell.OK("config-port", "%s is free (--%s)", address, flag)
	case errors.Is(err, syscall.EADDRINUSE) && isHub(scheme, flags.Dialable(address)):
		tell.OK("config-port", "a hub is running at %s (--%s)", address, flag)
	case errors.As(err, new(*net.AddrError)), errors.As(err, new(net.UnknownNetworkError)):
		// a fault, and said
	default:
		tell.Fail("config-port", "stop what listens there, or give another address", "%v", app.ListenError(flag, address, err))
	}
}

// isHub asks whether what listens there is a hub, and lives.
func isHub(scheme, address string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+"/livez", nil)
	if err != nil {
		return false
	}
	// The certificate is for the name that browsers use, and nothing is told to who answers.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answer, err := client.Do(r)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 16))
	return err == nil && answer.StatusCode == http.StatusOK && string(body) == "ok\n"
}

// memoryLimit is how much memory the process may have: its control group's limit, or the
// machine's; 0: not known.
func memoryLimit() int64 {
	var limit int64
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil { // "max" is none
			limit = n
		}
	}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return limit
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			if kib, err := strconv.ParseInt(f[1], 10, 64); err == nil && (limit == 0 || kib<<10 < limit) {
				limit = kib << 10
			}
		}
	}
	return limit
}
