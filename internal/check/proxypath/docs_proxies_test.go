package proxypath_test

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/internal/check/proxypath"
	"usercast/internal/finding"
	"usercast/internal/proxytest"
)

// snippets are the indented blocks below a heading of docs/reverse-proxies.md.
func snippets(t *testing.T, heading string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile("../../../docs/reverse-proxies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/reverse-proxies.md has no section %s", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var block strings.Builder
	for line := range strings.Lines(section) {
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case indented:
			block.WriteString(code)
		case strings.TrimSpace(line) == "" && block.Len() > 0:
			block.WriteString("\n")
		case block.Len() > 0:
			blocks = append(blocks, block.String())
			block.Reset()
		}
	}
	return blocks
}

// adapted puts this test's ports, names and certificates into a snippet. Each must be in it.
func adapted(t *testing.T, snippet string, oldnew ...string) string {
	t.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(snippet, oldnew[i]) {
			t.Fatalf("the snippet has no %q any more:\n%s", oldnew[i], snippet)
		}
		snippet = strings.ReplaceAll(snippet, oldnew[i], oldnew[i+1])
	}
	return snippet
}

// What docs/reverse-proxies.md recommends is right in the eyes of check, over TLS and HTTP/2, and
// answers for a hub that is away.
func TestDocumentedProxies(t *testing.T) {
	if testing.Short() {
		t.Skip("starts proxies")
	}
	t.Parallel()
	writeCertificate(t)
	const hub, nobody = "127.0.0.1:8080", "127.0.0.1:1"
	proxies := map[string]func(t *testing.T, addr string) string{
		"nginx": func(t *testing.T, addr string) string {
			return proxytest.Nginx(t, adapted(t, snippets(t, "nginx")[0],
				"events { worker_connections 8192; }", "#", "listen 443 ssl http2;", "listen "+proxytest.Listen+" ssl http2;",
				"/etc/ssl/app.example.pem", certificate.cert, "/etc/ssl/app.example.key", certificate.key, hub, addr))
		},
		"Caddy": func(t *testing.T, addr string) string {
			return proxytest.Caddy(t, adapted(t, snippets(t, "Caddy")[0],
				"app.example {", "https://"+proxytest.Listen+" {\ntls "+certificate.cert+" "+certificate.key, hub, addr))
		},
		"HAProxy": func(t *testing.T, addr string) string {
			blocks := snippets(t, "HAProxy")
			file := t.TempDir() + "/away.http"
			// With an empty line at its end, as the page says.
			if err := os.WriteFile(file, []byte(strings.TrimRight(blocks[1], "\n")+"\n\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return proxytest.HAProxy(t, adapted(t, blocks[0], "bind :443 ssl crt /etc/haproxy/app.example.pem", "bind "+proxytest.Listen+" ssl crt "+certificate.both,
				"/etc/haproxy/errors/usercast-away.http", file, hub, addr))
		},
	}
	type pair struct{ here, away findings }
	found := make(map[string]*pair)
	var looking sync.WaitGroup
	for name, proxy := range proxies {
		s := newSite(t, often)
		here, away := proxy(t, s.addr), proxy(t, nobody)
		f := new(pair)
		found[name] = f
		patiently := func(u *proxypath.Target) { u.Watch = 2 * time.Second }
		looking.Go(func() { f.here = s.look(t, "https://"+here+"/events?user=42", patiently) })
		looking.Go(func() { f.away = s.look(t, "https://"+away+"/events?user=42", patiently) })
	}
	looking.Wait()
	for name, f := range found {
		t.Run(name, func(t *testing.T) {
			f.here.wantGood(t)
			f.here.want(t, finding.OK, "url-protocol", "HTTP/2.0")
			found := false
			for _, one := range f.away {
				found = found || one.Name == "url-no-hub" && strings.Contains(one.What, "answers for the hub")
			}
			if !found {
				t.Errorf("without a hub: %v", f.away)
			}
		})
	}
}
