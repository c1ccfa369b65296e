package proxypath_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"usercast/auth"
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

const (
	documentedHub = "127.0.0.1:8080"
	documentedApp = "127.0.0.1:3000"
	unreachable   = "127.0.0.1:1"
)

// withEmptyLine writes a snippet with an empty line at its end, as the page requires, and returns the file.
func withEmptyLine(t *testing.T, snippet string) (file string) {
	t.Helper()
	file = t.TempDir() + "/away"
	if err := os.WriteFile(file, []byte(strings.TrimRight(snippet, "\n")+"\n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// documentedProxies start the proxies with the configurations in docs/reverse-proxies.md, and return their addresses.
var documentedProxies = map[string]func(t *testing.T, hub, app string) string{
	"nginx": func(t *testing.T, hub, app string) string {
		return proxytest.Nginx(t, adapted(t, snippets(t, "nginx")[0],
			"events { worker_connections 8192; }", "#", "listen 443 ssl http2;", "listen "+proxytest.Listen+" ssl http2;",
			"/etc/ssl/app.example.pem", certificate.cert, "/etc/ssl/app.example.key", certificate.key, documentedHub, hub, documentedApp, app))
	},
	"Apache": func(t *testing.T, hub, app string) string {
		blocks := snippets(t, "Apache")
		return proxytest.Apache(t, adapted(t, blocks[0], "*:443", proxytest.Listen, "/etc/apache2/usercast-fallback.asis", withEmptyLine(t, blocks[1]),
			"/etc/ssl/app.example.pem", certificate.cert, "/etc/ssl/app.example.key", certificate.key, documentedHub, hub, documentedApp, app))
	},
	"Caddy": func(t *testing.T, hub, app string) string {
		return proxytest.Caddy(t, adapted(t, snippets(t, "Caddy")[0],
			"app.example {", "https://"+proxytest.Listen+" {\ntls "+certificate.cert+" "+certificate.key, documentedHub, hub, documentedApp, app))
	},
	"HAProxy": func(t *testing.T, hub, app string) string {
		blocks := snippets(t, "HAProxy")
		return proxytest.HAProxy(t, adapted(t, blocks[0], "bind :443 ssl crt /etc/haproxy/app.example.pem", "bind "+proxytest.Listen+" ssl crt "+certificate.both,
			"/etc/haproxy/errors/usercast-fallback.http", withEmptyLine(t, blocks[1]), documentedHub, hub, documentedApp, app))
	},
	"lighttpd": func(t *testing.T, hub, app string) string {
		blocks := snippets(t, "lighttpd")
		server := func(addr string) string {
			host, port, _ := strings.Cut(addr, ":")
			return `"host" => "` + host + `", "port" => ` + port
		}
		return proxytest.Lighttpd(t, certificate.both, map[string]string{"usercast-fallback.sh": blocks[1]},
			adapted(t, blocks[0], server(documentedHub), server(hub), server(documentedApp), server(app)))
	},
}

// check reports no problems with the configurations in docs/reverse-proxies.md, over TLS and HTTP/2. Their fallback
// response works while the hub is down.
func TestDocumentedProxies(t *testing.T) {
	if testing.Short() {
		t.Skip("starts proxies")
	}
	t.Parallel()
	writeCertificate(t)
	type pair struct{ up, down findings }
	found := make(map[string]*pair)
	var inspections sync.WaitGroup
	for name, proxy := range documentedProxies {
		s := newSite(t, often)
		up, down := proxy(t, s.addr, unreachable), proxy(t, unreachable, unreachable)
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

// With the configurations in docs/reverse-proxies.md, the app and the hub receive the scheme, host and address of the
// client, and no header of this kind that the client sent.
func TestDocumentedProxiesSetForwardedHeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("starts proxies")
	}
	t.Parallel()
	writeCertificate(t)
	for name, proxy := range documentedProxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			received := make(chan http.Header, 100) // never full, so that the handler does not block
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/readyz" { // a health check
					return
				}
				r.Header.Set("Host", r.Host)
				received <- r.Header
			}))
			t.Cleanup(server.Close)
			target := server.Listener.Addr().String()
			addr := proxy(t, target, target)
			for _, path := range []string{"/events", "/some/page"} {
				for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
					response := getForged(t, "https://"+addr+path, protocol)
					if response.StatusCode != http.StatusOK || response.Proto != protocol {
						t.Fatalf("%s: %s %s, want 200 over %s", path, response.Proto, response.Status, protocol)
					}
					checkForwarded(t, path+" over "+protocol, <-received, addr)
				}
			}
		})
	}
}

// With the configurations and the flags in docs/reverse-proxies.md, a session check succeeds in an app that forces HTTPS. Its
// X-Forwarded-* headers are those that the app receives from the proxy without the hub.
func TestDocumentedProxiesWithAppThatForcesHTTPS(t *testing.T) {
	if testing.Short() {
		t.Skip("starts proxies")
	}
	t.Parallel()
	writeCertificate(t)
	var received atomic.Pointer[http.Header] // of the last session check
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := r.Header.Clone()
		header.Set("Host", r.Header.Get("X-Forwarded-Host")) // checkForwarded expects that of the browser
		received.Store(&header)
		if r.Header.Get("X-Forwarded-Proto") != "https" {
			http.Redirect(w, r, "https://"+r.Host+r.URL.Path, http.StatusMovedPermanently)
			return
		}
		w.Header().Set(auth.UserHeader, "42")
	}))
	t.Cleanup(app.Close)
	target, err := url.Parse(app.URL)
	if err != nil {
		t.Fatal(err)
	}
	forward := auth.NewForward(auth.ForwardConfig{URL: target, Proxies: auth.Proxies{netip.MustParsePrefix("127.0.0.1/32")}})
	t.Cleanup(forward.Close)
	s := newSiteWith(t, often, forward.Authenticate)
	for name, proxy := range documentedProxies {
		addr := proxy(t, s.addr, unreachable)
		t.Run(name, func(t *testing.T) {
			response := getForged(t, "https://"+addr+"/events", "HTTP/2.0")
			if got := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || got != "text/event-stream" {
				t.Errorf("%s, Content-Type %q, want a stream", response.Status, got)
			}
			if header := received.Load(); header == nil {
				t.Error("no session check")
			} else {
				checkForwarded(t, "session check", *header, addr)
			}
		})
	}
}

// forgedHeaders are headers of a client that claims to be a proxy.
var forgedHeaders = []string{
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Proto", "X-Forwarded-Scheme",
	"X-Forwarded-Server", "X-Forwarded-Ssl",
}

const forged = "6.6.6.6"

// getForged sends a request with forged headers.
func getForged(t *testing.T, url, protocol string) *http.Response {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(protocol == "HTTP/1.1")
	transport.Protocols.SetHTTP2(protocol != "HTTP/1.1")
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range forgedHeaders {
		request.Header.Set(name, forged)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response
}

// checkForwarded checks what a server behind a proxy at addr received.
func checkForwarded(t *testing.T, request string, header http.Header, addr string) {
	t.Helper()
	for name, want := range map[string]string{
		"Host": addr, "X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": addr,
	} {
		if got := strings.Join(header.Values(name), ", "); got != want {
			t.Errorf("%s: %s is %q, want %q", request, name, got, want)
		}
	}
	for _, name := range forgedHeaders {
		if got := strings.Join(header.Values(name), ", "); strings.Contains(got, forged) {
			t.Errorf("%s: %s of the client was passed on: %q", request, name, got)
		}
	}
}
