// Package certtest creates certificates for tests: self-signed ones, and those of a certificate authority.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A Pair is a certificate and its key, in PEM.
type Pair struct{ Cert, Key []byte }

// New creates a self-signed pair whose subject has the given common name.
func New(t testing.TB, name string) Pair {
	t.Helper()
	return issue(t, name, nil, []string{"127.0.0.1"}, time.Now().Add(time.Hour))
}

// Issue creates a pair that is signed by the pair p, for host names and IP addresses.
func (p Pair) Issue(t testing.TB, name string, hosts ...string) Pair {
	t.Helper()
	return issue(t, name, &p, hosts, time.Now().Add(time.Hour))
}

// IssueUntil is like Issue, with the end of the certificate's validity.
func (p Pair) IssueUntil(t testing.TB, end time.Time, name string, hosts ...string) Pair {
	t.Helper()
	return issue(t, name, &p, hosts, end)
}

func issue(t testing.TB, name string, ca *Pair, hosts []string, end time.Time) Pair {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             end.Add(-2 * time.Hour),
		NotAfter:              end,
		IsCA:                  ca == nil,
		BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	parent, signer := template, any(private)
	if ca != nil {
		pair, err := tls.X509KeyPair(ca.Cert, ca.Key)
		if err != nil {
			t.Fatal(err)
		}
		parent, signer = pair.Leaf, pair.PrivateKey
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}
}

// Pool returns a pool that contains the certificates of the pairs.
func Pool(pairs ...Pair) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, p := range pairs {
		pool.AppendCertsFromPEM(p.Cert)
	}
	return pool
}

// Write writes cert.pem and key.pem into a directory, and returns their paths.
func (p Pair) Write(t testing.TB, dir string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, content := range map[string][]byte{cert: p.Cert, key: p.Key} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
