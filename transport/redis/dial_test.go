package redis

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"usercast/internal/certtest"
	"usercast/internal/redistest"
)

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "usercast") // the path of t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "redis.sock")
	server := redistest.Start(t, "--unixsocket", socket)
	h := start(t, parse(t, "unix://"+socket, ServerOptions{}), nil)
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, server, "x")
	if got := h.Stats().Redis; got != socket {
		t.Errorf("named %q", got)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key := certtest.New(t, "redis").Write(t, t.TempDir())
	port := redistest.FreePort(t)
	server := redistest.Start(t, "--tls-port", fmt.Sprint(port), "--tls-cert-file", cert,
		"--tls-key-file", key, "--tls-ca-cert-file", cert, "--tls-auth-clients", "no")
	url := fmt.Sprintf("rediss://127.0.0.1:%d", port)

	trusting := parse(t, url, ServerOptions{TLSCAFile: cert})
	h := start(t, trusting, func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, server, "x")
	eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
	commands := NewCommands(trusting)
	defer commands.Close()
	for range 2 {
		if n, err := commands.Publish(context.Background(), "user-42", "y"); err != nil || n != 1 {
			t.Errorf("Publish = %d, %v", n, err)
		}
	}
	if trusting.Insecure() {
		t.Error("Insecure is true although the certificate is verified")
	}

	careless := parse(t, url+"?skip_verify=true", ServerOptions{})
	start(t, careless, nil).awaitGeneration(t, 1)
	if !careless.Insecure() {
		t.Error("Insecure is false although the certificate is not verified")
	}

	for _, c := range []struct {
		url, ca, want string
		patience      time.Duration
	}{
		{url, "", "unknown CA", patience},
		{strings.Replace(url, "127.0.0.1", "localhost", 1), cert, "for another host name", patience},
		{"rediss://" + server.Addr(), cert, "reason=tls", time.Second},          // a port without TLS
		{strings.Replace(url, "rediss", "redis", 1), "", "rediss", time.Second}, // a TLS port without TLS
	} {
		h := start(t, parse(t, c.url, ServerOptions{TLSCAFile: c.ca, AnswerTimeout: c.patience}), nil)
		h.log.await(t, "WARN redis subscription failed", c.want)
		h.stop()
		h.log.warnings(t, 1)
	}
}
