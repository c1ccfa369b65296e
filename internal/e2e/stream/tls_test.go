package stream

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/certtest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

func TestStreamsOverTLS(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	pair := certtest.New(t, "first")
	h, _ := hubtest.StartTLS(t, server, pair)
	app := hubtest.NewPublisher(t, server.Addr())
	pool := certtest.Pool(pair)
	for name, version := range map[string]int{"HTTP/1.1": 1, "HTTP/2": 2} {
		t.Run(name, func(t *testing.T) {
			transport := hubtest.TLSTransport(t, pool, version == 2)
			p := hubtest.OpenOver(t, transport, h.SecureURL("/events?user=42"))
			if p.Response.ProtoMajor != version || p.Response.TLS == nil || p.Response.TLS.Version < tls.VersionTLS12 {
				t.Errorf("response over %s, %+v", p.Response.Proto, p.Response.TLS)
			}
			app.Publish(t, "user-42", name)
			app.Publish(t, "user-42", "a\nb")
			p.Want(t, name, "a\nb")
			if a := secureStatus(t, h, transport, "/readyz"); a != 200 {
				t.Errorf("/readyz: %d", a)
			}
			before := h.Hub().Stats().Disconnects[hub.ReasonClosed]
			p.Close()
			hubtest.Within(t, hubtest.Soon, "the closed stream has ended", func() bool { return h.Hub().Stats().Disconnects[hub.ReasonClosed] == before+1 })
		})
	}
	// A client that supports both negotiates HTTP/2.
	both := hubtest.TLSTransport(t, pool, true)
	both.Protocols.SetHTTP1(true)
	if p := hubtest.OpenOver(t, both, h.SecureURL("/events?user=42")); p.Response.ProtoMajor != 2 {
		t.Errorf("a client that supports both receives %s", p.Response.Proto)
	}
	if a := hubtest.Request(t, "GET", h.PublicURL("/events?user=42")); a.Status != 400 {
		t.Errorf("a request without TLS: status %d", a.Status)
	}
	// The admin listener, which usercast health requests, does not use TLS.
	if a := hubtest.Request(t, "GET", h.AdminURL("/readyz")); a.Status != 200 {
		t.Errorf("/readyz of the admin listener: %d %s", a.Status, a.Body)
	}
}

func secureStatus(t *testing.T, h *hubtest.Hub, transport *http.Transport, path string) int {
	t.Helper()
	r, err := http.NewRequest("GET", h.SecureURL(path), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// Errors of clients do not cause a warning each: otherwise any client could flood the log.
func TestOldTLSIsRejectedWithoutWarnings(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	pair := certtest.New(t, "first")
	h, _ := hubtest.StartTLS(t, server, pair)
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", h.PublicAddr(), &tls.Config{RootCAs: certtest.Pool(pair), MinVersion: version, MaxVersion: version})
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			conn.Close()
		}
	}
	hubtest.Eventually(t, "the rejections are logged", func() bool { return len(h.Log.Lines("TLS handshake error")) == 2 })
	if n := len(h.Log.Lines("level=DEBUG", "TLS handshake error")); n != 2 {
		t.Errorf("%d of them at debug level, want 2", n)
	}
}

// With TLS 1.2, the hub accepts only cipher suites with authenticated encryption (AEAD). The
// others use CBC, or lack forward secrecy.
func TestTLS12WithAEADOnly(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	pair := certtest.New(t, "hub")
	h, _ := hubtest.StartTLS(t, server, pair)
	aead := 0
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !slices.Contains(suite.SupportedVersions, tls.VersionTLS12) || strings.Contains(suite.Name, "RSA") {
			continue // for TLS 1.3, or for another type of certificate
		}
		isAEAD := strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "CHACHA20")
		conn, err := tls.Dial("tcp", h.PublicAddr(), &tls.Config{
			RootCAs: certtest.Pool(pair), MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID},
		})
		if (err == nil) != isAEAD {
			t.Errorf("%s: %v", suite.Name, err)
		}
		if err == nil {
			aead++
			conn.Close()
		}
	}
	if aead != 3 {
		t.Errorf("%d suites are accepted, want 3", aead)
	}
}

// shows returns the common name of the certificate in a new handshake.
func shows(t *testing.T, h *hubtest.Hub, pool *x509.CertPool) string {
	t.Helper()
	conn, err := tls.Dial("tcp", h.PublicAddr(), &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// Certificates are renewed every few weeks, while streams may stay open.
func TestRenewedCertificateIsServed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	first, second, third := certtest.New(t, "first"), certtest.New(t, "second"), certtest.New(t, "third")
	pool := certtest.Pool(first, second, third)
	app := hubtest.NewPublisher(t, server.Addr())
	// As in Kubernetes: the files are links through a link to a directory.
	dir := t.TempDir()
	swap := func(pair certtest.Pair, name string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		pair.Write(t, filepath.Join(dir, name))
		link := filepath.Join(dir, "data.new")
		if err := os.Symlink(name, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	swap(first, "1")
	h := hubtest.Start(t, server, "--tls-cert", filepath.Join(dir, "data", "cert.pem"), "--tls-key", filepath.Join(dir, "data", "key.pem"))
	streams := []*ssetest.Stream{
		hubtest.OpenOver(t, hubtest.TLSTransport(t, pool, false), h.SecureURL("/events?user=42")),
		hubtest.OpenOver(t, hubtest.TLSTransport(t, pool, true), h.SecureURL("/events?user=42")),
	}
	check := func(name string) {
		t.Helper()
		if got := shows(t, h, pool); got != name {
			t.Errorf("a handshake has the %s certificate, want the %s", got, name)
		}
		app.Publish(t, "user-42", name)
		for _, p := range streams {
			p.Want(t, name)
		}
	}
	check("first")
	swap(second, "2")
	check("second")
	third.Write(t, filepath.Join(dir, "2")) // overwrites the old files
	check("third")
	if n := len(h.Log.Lines("certificate reloaded")); n != 2 {
		t.Errorf("%d reloads, want 2", n)
	}
}

// A handshake between the writes of the two files still uses the previous certificate.
func TestHalfWrittenCertificateIsLoggedOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	first, second := certtest.New(t, "first"), certtest.New(t, "second")
	pool := certtest.Pool(first, second)
	h, dir := hubtest.StartTLS(t, server, first)
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(file string, content []byte) func() error {
		return func() error { return os.WriteFile(file, content, 0o600) }
	}
	for i, step := range []struct {
		what   string
		change func() error
		shows  string
	}{
		{"the certificate alone", write(cert, second.Cert), "first"},
		{"half a key", write(key, second.Key[:len(second.Key)/2]), "first"},
		{"an empty key", write(key, nil), "first"},
		{"no key", func() error { return os.Remove(key) }, "first"},
		{"the pair", write(key, second.Key), "second"},
	} {
		if err := step.change(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got := shows(t, h, pool); got != step.shows {
				t.Errorf("%s: a handshake has the %s certificate", step.what, got)
			}
		}
		if n, want := len(h.Log.Lines("level=WARN", "certificate reload failed")), min(i+1, 4); n != want {
			t.Errorf("%s: %d warnings, want %d", step.what, n, want)
		}
	}
}

// An unfinished handshake holds a file descriptor no longer than an unfinished request.
func TestUnfinishedHandshakeIsClosed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	cert, key := certtest.New(t, "first").Write(t, t.TempDir())
	h := hubtest.New(t, server.URL(), "--tls-cert", cert, "--tls-key", key)
	public, _ := h.Servers()
	public.ReadHeaderTimeout = 200 * time.Millisecond // shorter than in production, to keep the test fast
	hubtest.Run(t, h).AwaitSubscription(t, 1)
	for _, begin := range []string{"", "\x16", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"} {
		conn := hubtest.Dial(t, h.PublicAddr())
		start := time.Now()
		if _, err := io.WriteString(conn, begin); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil || time.Since(start) > hubtest.Soon {
			t.Errorf("after %q: closed after %v, %v", begin, time.Since(start), err)
		}
	}
}
