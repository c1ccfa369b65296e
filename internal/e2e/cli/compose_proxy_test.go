package cli

import (
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/proxytest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// The two hubs and the proxy of docker-compose.yml: a page continues at the other hub when its hub is killed.
func TestComposeProxyMovesPagesToTheOtherHub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	hubs := map[string]*hubtest.Instance{"hub-a": nil, "hub-b": nil}
	for name := range hubs {
		hubs[name] = hubtest.StartInstance(t, server, "--retry", "100ms")
	}
	fallback := filepath.Join(hubtest.Root(t), "deploy/haproxy")
	config := strings.NewReplacer(
		"bind :8080", "bind "+proxytest.Listen,
		"/usr/local/etc/haproxy", fallback,
		"hub-a:8080", hubs["hub-a"].Public, "hub-b:8080", hubs["hub-b"].Public, // instead of names that Docker resolves
		" resolvers docker init-addr libc,none", "",
	).Replace(hubtest.ReadFile(t, "deploy/haproxy/haproxy.cfg"))
	config = regexp.MustCompile(`(?m)^resolvers docker\n( .*\n)+`).ReplaceAllString(config, "")
	proxy := proxytest.HAProxy(t, config)

	// Until the health checks have found a hub, HAProxy sends the file for pages, which has no opening block.
	var page *ssetest.Stream
	hubtest.Eventually(t, "the proxy routes to a hub", func() (ok bool) {
		stream, err := ssetest.Open(proxy, "user=42")
		page = stream
		return err == nil
	})
	defer func() { page.Close() }()
	publisher := hubtest.NewPublisher(t, server.Addr())
	publisher.Publish(t, "user-42", "before")
	page.Want(t, "before")

	hub := hubs["hub-a"]
	if hubtest.Scrape(t, hub.Admin).Sum("usercast_clients") == 0 {
		hub = hubs["hub-b"]
	}
	hub.Stop(t, syscall.SIGKILL)
	publisher.Publish(t, "user-42", "between")
	lastID := page.LastID
	page.Close()
	hubtest.Eventually(t, "the proxy routes to the other hub", func() (ok bool) {
		stream, err := ssetest.Open(proxy, "user=42", "Last-Event-ID: "+lastID)
		if err == nil {
			page = stream
		}
		return err == nil
	})
	publisher.Publish(t, "user-42", "after")
	page.Want(t, "between", "after") // and no gap
}
