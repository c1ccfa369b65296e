package redistest

import (
	"os"
	"path/filepath"
	"testing"

	"usercast/internal/certtest"
)

// TLSFiles are the certificates of servers with TLS, and of a client. Servers read theirs at start.
type TLSFiles struct {
	CA, Cert, Key         string // of the servers, for localhost
	ClientCert, ClientKey string

	tb  testing.TB
	dir string
}

// NewTLSFiles creates a certificate authority, and certificates that it has signed.
func NewTLSFiles(tb testing.TB) *TLSFiles {
	tb.Helper()
	dir := tb.TempDir()
	f := &TLSFiles{
		tb: tb, dir: dir,
		CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server-key.pem"),
		ClientCert: filepath.Join(dir, "client.pem"), ClientKey: filepath.Join(dir, "client-key.pem"),
	}
	f.Renew()
	return f
}

// Renew replaces all files with those of another certificate authority.
func (f *TLSFiles) Renew() {
	f.tb.Helper()
	ca := certtest.New(f.tb, "test CA")
	server, client := ca.Issue(f.tb, "server", "localhost"), ca.Issue(f.tb, "client")
	for file, content := range map[string][]byte{f.CA: ca.Cert, f.Cert: server.Cert, f.Key: server.Key, f.ClientCert: client.Cert, f.ClientKey: client.Key} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			f.tb.Fatal(err)
		}
	}
}

// Args returns the arguments of a redis-server. It requires client certificates, as Redis does by default.
func (f *TLSFiles) Args() []string {
	return []string{"--tls-cert-file", f.Cert, "--tls-key-file", f.Key, "--tls-ca-cert-file", f.CA}
}
