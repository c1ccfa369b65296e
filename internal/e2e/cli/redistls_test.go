package cli

import (
	"slices"
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// Streams stay open while Sentinels with TLS and a separate password promote a replica, and while certificates and
// passwords are renewed.
func TestStreamsSurviveAFailoverAndARenewalWithTLS(t *testing.T) {
	t.Parallel()
	files := redistest.NewTLSFiles(t)
	args := append(files.Args(), "--tls-replication", "yes", "--replica-announce-ip", "localhost")
	primary := redistest.Start(t, args...)
	replica := redistest.StartReplica(t, primary, args...)
	config := []string{"tls-replication yes", "sentinel resolve-hostnames yes", "sentinel announce-hostnames yes", "requirepass old-password"}
	for pair := range slices.Chunk(files.Args(), 2) {
		config = append(config, strings.TrimPrefix(pair[0], "--")+" "+pair[1])
	}
	sentinel := redistest.StartSentinels(t, 1, "main", primary, config...)[0]
	secrets := settingsDir{t, t.TempDir()}
	secrets.write("sentinel", "old-password\n")
	redis := []string{
		"--redis", "rediss+sentinel://" + sentinel.TLSAddr() + "/main", "--redis-sentinel-password-file", secrets.path("sentinel"),
		"--redis-tls-ca", files.CA, "--redis-tls-cert", files.ClientCert, "--redis-tls-key", files.ClientKey,
	}
	run := func(command string, args ...string) (stdout string) {
		t.Helper()
		code, stdout, stderr := hubtest.RunCommand(t, slices.Concat([]string{command}, redis, args)...)
		if code != 0 {
			t.Errorf("%s: exit code %d, %s%s", command, code, stdout, stderr)
		}
		return stdout
	}
	p := hubtest.StartProgram(t, nil, slices.Concat([]string{"serve"}, redis, []string{"--auth", "insecure", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"})...)
	public, _ := p.Addresses(t)
	hubtest.AwaitReady(t, public)
	page, err := ssetest.Open(public, "user=42")
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	run("publish", "42", "before")
	page.Want(t, "before")
	if out := run("check", "--auth", "insecure"); !strings.Contains(out, "a published message was received") {
		t.Errorf("check reports %s", out)
	}

	primary.Kill()
	page.WantGap(t, "redis-reconnect")
	run("publish", "42", "after")
	page.Want(t, "after")

	wantReload(t, hangUp(t, p), "", "redis sentinel password, redis certificate", "")
	files.Renew()
	secrets.write("sentinel", "new-password\n")
	wantReload(t, hangUp(t, p), "redis sentinel password, redis certificate", "", "")
	replica.Do("publish", "user-42", "over the open connection")
	page.Want(t, "over the open connection")
	// Redis reads its files again only if a setting changes.
	replica.Do("config", "set", "tls-cert-file", "/."+files.Cert, "tls-key-file", "/."+files.Key, "tls-ca-cert-file", "/."+files.CA)
	sentinel.Restart()
	sentinel.Do("acl", "setuser", "default", "resetpass", ">new-password")
	replica.Do("client", "kill", "type", "pubsub")
	page.WantGap(t, "redis-reconnect")
	run("publish", "42", "over a new one")
	page.Want(t, "over a new one")
}
