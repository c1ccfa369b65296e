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

// snippets returns the indented blocks below a heading of docs/reverse-proxies.md.
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

// adapted replaces ports, names and certificates of a snippet with those of the test. It must contain all of them.
func adapted(t *testing.T, snippet string, oldnew ...string) string {
	t.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(snippet, oldnew[i]) {
			t.Fatalf("the snippet does not contain %q any more:\n%s", oldnew[i], snippet)
		}
		snippet = strings.ReplaceAll(snippet, oldnew[i], oldnew[i+1])
	}
	return snippet
}

// check reports no problems with the configurations in docs/reverse-proxies.md, over TLS and HTTP/2. Their fallback
// response works while the hub is down.
func TestDocumentedProxies(t *testing.T) {
	if testing.Short() {
		t.Skip("starts proxies")
	}
	t.Parallel()
	writeCertificate(t)
	const hub, unreachable = "127.0.0.1:8080", "127.0.0.1:1"
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
			// The file ends with an empty line, as the page requires.
			if err := os.WriteFile(file, []byte(strings.TrimRight(blocks[1], "\n")+"\n\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return proxytest.HAProxy(t, adapted(t, blocks[0], "bind :443 ssl crt /etc/haproxy/app.example.pem", "bind "+proxytest.Listen+" ssl crt "+certificate.both,
				"/etc/haproxy/errors/usercast-away.http", file, hub, addr))
		},
	}
	type pair struct{ up, down findings }
	found := make(map[string]*pair)
	var inspections sync.WaitGroup
	for name, proxy := range proxies {
		s := newSite(t, often)
		up, down := proxy(t, s.addr), proxy(t, unreachable)
		f := new(pair)
		found[name] = f
		patiently := func(u *proxypath.Target) { u.Watch = 2 * time.Second }
		inspections.Go(func() { f.up = s.inspect(t, "https://"+up+"/events?user=42", patiently) })
		inspections.Go(func() { f.down = s.inspect(t, "https://"+down+"/events?user=42", patiently) })
	}
	inspections.Wait()
	for name, f := range found {
		t.Run(name, func(t *testing.T) {
			f.up.wantGood(t)
			f.up.want(t, finding.OK, "url-protocol", "HTTP/2.0")
			found := false
			for _, one := range f.down {
				found = found || one.Name == "url-no-hub" && strings.Contains(one.What, "fallback response")
			}
			if !found {
				t.Errorf("without a hub: %v", f.down)
			}
		})
	}
}
