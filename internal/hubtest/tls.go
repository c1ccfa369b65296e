package hubtest

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"usercast/internal/certtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// StartTLS is Start for a hub with the certificate. It writes cert.pem and key.pem to dir.
func StartTLS(tb testing.TB, server *redistest.Server, pair certtest.Pair, flags ...string) (h *Hub, dir string) {
	tb.Helper()
	dir = tb.TempDir()
	cert, key := pair.Write(tb, dir)
	return Start(tb, server, append(flags, "--tls-cert", cert, "--tls-key", key)...), dir
}

// SecureURL returns a URL of the public listener of a hub with TLS.
func (h *Hub) SecureURL(path string) string { return "https://" + h.PublicAddr() + path }

// TLSTransport returns a transport that trusts the pool and uses only one version of HTTP.
func TLSTransport(tb testing.TB, pool *x509.CertPool, http2 bool) *http.Transport {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetHTTP2(http2)
	tb.Cleanup(transport.CloseIdleConnections)
	return transport
}

// OpenOver opens a stream with a transport, and reads its opening block. It is closed when the test ends.
func OpenOver(tb testing.TB, transport http.RoundTripper, url string, headers ...string) *ssetest.Stream {
	tb.Helper()
	s, err := ssetest.Get(transport, url, headers...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}
