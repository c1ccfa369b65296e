package redis

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/internal/certtest"
	"usercast/internal/redistest"
)

// tlsOptions returns the options of a client that trusts the servers and has a certificate.
func tlsOptions(f *redistest.TLSFiles) ServerOptions {
	return ServerOptions{TLSCAFile: f.CA, TLSCertFile: f.ClientCert, TLSKeyFile: f.ClientKey}
}

func tlsURL(scheme string, servers ...*redistest.Server) string {
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.TLSAddr())
	}
	return scheme + "://" + strings.Join(addrs, ",")
}

// exercise checks that the feeds and commands can use a server. Nodes announce the name localhost, and their certificates
// are not valid for 127.0.0.1.
func exercise(t *testing.T, server *Server) (h *subscriber, f *follower) {
	t.Helper()
	h = start(t, server, func(c *PubSubConfig) { c.ProbeEvery = 50 * time.Millisecond })
	h.awaitGeneration(t, 1)
	f = follow(t, server, func(c *StreamConfig) { c.ProbeEvery = 50 * time.Millisecond })
	c := NewCommands(server)
	t.Cleanup(c.Close)
	if _, err := c.Publish(context.Background(), "user-42:activity", "hello"); err != nil {
		t.Error(err)
	}
	h.awaitEvent(t, "42/activity/hello")
	if _, err := c.Append(context.Background(), "log", "user-1", "one"); err != nil {
		t.Error(err)
	}
	f.want(t, "1: one")
	eventually(t, "probes were received", func() bool { return probes(h) >= 3 })
	h.log.warnings(t, 0)
	return h, f
}

// sentinelTLS returns the lines of a Sentinel's configuration that Args returns for a server.
func sentinelTLS(f *redistest.TLSFiles) (lines []string) {
	for pair := range slices.Chunk(f.Args(), 2) {
		lines = append(lines, strings.TrimPrefix(pair[0], "--")+" "+pair[1])
	}
	return lines
}

func TestTLSWithSentinels(t *testing.T) {
	t.Parallel()
	files := redistest.NewTLSFiles(t)
	args := append(files.Args(), "--tls-replication", "yes", "--replica-announce-ip", "localhost", "--requirepass", "secret", "--masterauth", "secret")
	primary := redistest.Start(t, args...)
	replica := redistest.StartReplica(t, primary, args...)
	config := []string{
		"tls-replication yes", "sentinel resolve-hostnames yes", "sentinel announce-hostnames yes", "sentinel auth-pass main secret",
		"user default off", "user watcher on >sentinel-secret -@all +auth +hello +ping +client +sentinel", "sentinel sentinel-user redistest", "sentinel sentinel-pass redistest",
	}
	config = append(config, sentinelTLS(files)...)
	sentinels := redistest.StartSentinels(t, 3, "main", primary, config...)
	url := strings.Replace(tlsURL("rediss+sentinel", sentinels...), "://", "://:secret@", 1) + "/main"
	opts := tlsOptions(files)
	opts.SentinelPassword = "wrong"
	server := parse(t, url+"?sentinel_user=watcher", opts)
	h := start(t, server, nil)
	h.log.await(t, "WARN redis subscription failed", "reason=password", "Sentinel", "--redis-sentinel-password-file")
	h.log.mustNotContain(t, "wrong")
	server.SetSentinelPassword("sentinel-secret")
	h.awaitGeneration(t, 1)
	h.stop()

	h, f := exercise(t, server)
	primary.Kill()
	h.awaitGeneration(t, 2)
	h.awaitDelivery(t, replica, "after")
	eventually(t, "the stream feed follows", func() bool { s := f.Stats(); return s.Connected && s.Generation >= 2 })

	for url, advice := range map[string]string{
		strings.Replace(url, "rediss", "redis", 1): "use rediss+sentinel://",
		url + "?sentinel_tls=false":                "remove sentinel_tls=false",
	} {
		h = start(t, parse(t, url, ServerOptions{}), nil)
		h.log.await(t, "WARN redis subscription failed", "no Sentinel responds", advice)
		h.stop()
	}
}

func TestSentinelsWithoutTLS(t *testing.T) {
	t.Parallel()
	files := redistest.NewTLSFiles(t)
	primary := redistest.Start(t, files.Args()...)
	config := []string{"tls-replication yes", "sentinel resolve-hostnames yes", "sentinel announce-hostnames yes"}
	config = append(config, sentinelTLS(files)...)
	sentinel := redistest.StartSentinels(t, 1, "main", primary, config...)[0]
	url := strings.Replace(sentinelURL(sentinel), "redis", "rediss", 1)
	opts := tlsOptions(files)
	opts.AnswerTimeout = 500 * time.Millisecond
	h := start(t, parse(t, url, opts), nil)
	h.log.await(t, "WARN redis subscription failed", "reason=tls", "Sentinel", "append ?sentinel_tls=false")
	h.stop()
	exercise(t, parse(t, url+"?sentinel_tls=false", tlsOptions(files)))
}

func tlsCluster(t *testing.T, n int, files *redistest.TLSFiles) []*redistest.Server {
	t.Helper()
	return redistest.StartCluster(t, n, tlsClusterArgs(files)...)
}

func tlsClusterArgs(files *redistest.TLSFiles) []string {
	return append(files.Args(), "--tls-cluster", "yes", "--tls-replication", "yes",
		"--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname")
}

func TestTLSWithCluster(t *testing.T) {
	t.Parallel()
	files := redistest.NewTLSFiles(t)
	for name, args := range map[string][]string{
		"host names are preferred":                               tlsClusterArgs(files),
		"IP addresses are preferred, and not in the certificate": append(tlsClusterArgs(files), "--cluster-preferred-endpoint-type", "ip"),
		"no host names are announced":                            append(files.Args(), "--tls-cluster", "yes", "--tls-replication", "yes"),
		"the endpoint is the address of the connection":          append(tlsClusterArgs(files), "--cluster-preferred-endpoint-type", "unknown-endpoint"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := redistest.StartCluster(t, 3, args...)
			server := parse(t, tlsURL("rediss+cluster", nodes[0]), tlsOptions(files))
			h, _ := exercise(t, server)
			h.deliverFrom(t, "any node", nodes...)
		})
	}
}

// A cluster that prefers host names, but does not announce any, returns "?" with the IP address.
func TestClusterWithoutAnnouncedHostNames(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3, "--cluster-preferred-endpoint-type", "hostname")
	h, _ := exercise(t, parse(t, clusterURL("", nodes[0]), ServerOptions{}))
	h.deliverFrom(t, "any node", nodes...)
}

// The announced host names do not resolve, but the addresses in the URL can be reached.
func TestUnreachableAnnouncedAddressIsNamed(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2, "--cluster-announce-hostname", "redis.invalid", "--cluster-preferred-endpoint-type", "hostname")
	server := parse(t, clusterURL("", nodes...), ServerOptions{})
	h := start(t, server, func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
	h.awaitGeneration(t, 1)
	h.log.await(t, "WARN redis cluster primary of the control channel unreachable", "redis.invalid:", "which the cluster announces", "cluster-announce-ip")
	eventually(t, "probes were received", func() bool { return probes(h) >= 10 })
	h.deliverFrom(t, "x", nodes...)
	if n := h.Stats().Generation; n != 1 {
		t.Errorf("generation %d", n)
	}
	h.log.warnings(t, 1)
	log := &logbook{}
	followLater(t, server, logTo(log))
	log.await(t, "WARN redis subscription failed", "redis.invalid:", "cluster-announce-ip")
}

// A certificate that is renewed is used by the next connection. Open connections are not affected.
func TestRenewedCertificatesAreUsed(t *testing.T) {
	t.Parallel()
	files := redistest.NewTLSFiles(t)
	server := redistest.Start(t, files.Args()...)
	redis := parse(t, tlsURL("rediss", server), tlsOptions(files))
	h := start(t, redis, nil)
	h.awaitGeneration(t, 1)
	files.Renew()
	c := NewCommands(redis)
	defer c.Close()
	if _, err := c.Publish(context.Background(), "user-42", "x"); err == nil || !strings.Contains(err.Error(), "unknown CA") {
		t.Errorf("the server has its old certificate, and the hub trusts the new CA only: %v", err)
	}
	h.log.once(t, "INFO redis certificate reloaded", "file="+files.CA+", "+files.ClientCert+", "+files.ClientKey)
	h.awaitDelivery(t, server, "over the open connection")
	server.Restart()
	h.awaitGeneration(t, 2)
	h.awaitDelivery(t, server, "over the next one")

	// A file that is invalid keeps its previous value, and is reported once.
	if err := os.WriteFile(files.ClientKey, []byte("half a ke"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.Publish(context.Background(), "user-42", "y"); err != nil {
			t.Error(err)
		}
		c.server.Renew()
	}
	h.log.once(t, "WARN redis certificate reload failed, keeping previous certificate", "--redis-tls-cert: ", "not a matching certificate and key")
	if changed, err := redis.ReloadTLS(); changed || err == nil {
		t.Errorf("ReloadTLS returns %v, %v", changed, err)
	}
}

func TestMissingClientCertificateIsNamed(t *testing.T) {
	t.Parallel()
	files := redistest.NewTLSFiles(t)
	ca := certtest.New(t, "foreign")
	foreign, foreignKey := ca.Write(t, t.TempDir())
	expired, expiredKey := ca.IssueUntil(t, time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC), "client").Write(t, t.TempDir())
	for _, protocols := range []string{"TLSv1.2", "TLSv1.3"} {
		server := redistest.Start(t, append(files.Args(), "--tls-protocols", protocols)...)
		for _, c := range []struct{ cert, key, want, hint string }{
			{"", "", "the server requires a client certificate", "set --redis-tls-cert and --redis-tls-key"},
			{foreign, foreignKey, "the server rejected the client certificate", "set --redis-tls-cert and --redis-tls-key"},
			{expired, expiredKey, "the server rejected the client certificate, which expired on 2024-02-29", "renew the files in --redis-tls-cert and --redis-tls-key"},
		} {
			redis := parse(t, tlsURL("rediss", server), ServerOptions{TLSCAFile: files.CA, TLSCertFile: c.cert, TLSKeyFile: c.key})
			h := start(t, redis, nil)
			h.log.await(t, "WARN redis subscription failed", "reason=tls", c.want, "hint="+c.hint)
			log := &logbook{}
			followLater(t, redis, func(cfg *StreamConfig) { cfg.Logger = slog.New(log) })
			log.await(t, "WARN redis subscription failed", "reason=tls", c.want)
			commands := NewCommands(redis)
			defer commands.Close()
			if _, err := commands.Publish(context.Background(), "user-42", "x"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: Publish returns %v", protocols, err)
			}
			h.stop()
			h.log.warnings(t, 1)
		}
	}
}

// A stalled server does not complete the TLS handshake. If it did before, TLS is not the cause.
func TestStalledServerWithTLSIsNotATLSFault(t *testing.T) {
	t.Parallel()
	files := redistest.NewTLSFiles(t)
	server := redistest.StartCluster(t, 1, append(files.Args(), "--tls-cluster", "yes", "--tls-auth-clients", "no")...)[0]
	c := NewCommands(parse(t, "rediss://"+server.TLSAddr(), ServerOptions{TLSCAFile: files.CA, AnswerTimeout: 3 * time.Second}))
	defer c.Close()
	if _, err := c.Publish(t.Context(), "user-42", "x"); err != nil {
		t.Fatal(err)
	}
	server.Freeze()
	defer server.Thaw()
	for _, connection := range []string{"open", "new"} {
		_, err := c.Publish(t.Context(), "user-42", "x")
		if err == nil || !strings.Contains(err.Error(), "Redis does not respond") || strings.Contains(err.Error(), "TLS") {
			t.Errorf("%s connection: %v", connection, err)
		}
	}
}
