package topology

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// encryption has the TLS settings of new connections. It reads its files again when one of them has
// changed, so that the next connection uses a renewed certificate. Safe for concurrent use.
type encryption struct {
	// Immutable after Parse.
	caFile, certFile, keyFile string // "": not set
	skipVerify                bool

	report atomic.Pointer[func(files string, err error)] // see Server.ReportReload

	// Guarded by mu.
	mu   sync.Mutex
	seen []fs.FileInfo    // state of the files at the last attempt; nil for a missing file
	cas  *x509.CertPool   // nil: those of the system
	pair *tls.Certificate // nil: no client certificate

	worked map[string]bool // addresses of servers with which a handshake has succeeded
}

func (e *encryption) hasWorked(addr string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.worked[addr]
}

func (e *encryption) setWorked(addr string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.worked == nil {
		e.worked = make(map[string]bool)
	}
	e.worked[addr] = true
}

// load reads the files. A file that is invalid keeps its previous value.
func (e *encryption) load() (changed bool, failed error) {
	e.seen = e.stat() // before the files, so that a change in between is detected by the next attempt
	if e.caFile != "" {
		cas, err := readCAs(e.caFile)
		switch {
		case err != nil:
			failed = err
		case e.cas == nil || !cas.Equal(e.cas):
			e.cas, changed = cas, true
		}
	}
	if e.certFile != "" {
		pair, err := readPair(e.certFile, e.keyFile)
		switch {
		case err != nil && failed != nil:
			failed = fmt.Errorf("%w; %w", failed, err) // one line
		case err != nil:
			failed = err
		case e.pair == nil || !slices.EqualFunc(pair.Certificate, e.pair.Certificate, bytes.Equal):
			e.pair, changed = &pair, true
		}
	}
	return changed, failed
}

func readCAs(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--redis-tls-ca: %w", err)
	}
	cas := x509.NewCertPool()
	if !cas.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--redis-tls-ca: %s does not contain a PEM certificate", file)
	}
	return cas, nil
}

func readPair(certFile, keyFile string) (pair tls.Certificate, err error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return pair, fmt.Errorf("--redis-tls-cert: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return pair, fmt.Errorf("--redis-tls-key: %w", err)
	}
	if pair, err = tls.X509KeyPair(cert, key); err != nil {
		return pair, fmt.Errorf("--redis-tls-cert: %s and %s are not a matching certificate and key: %s",
			certFile, keyFile, strings.TrimPrefix(err.Error(), "tls: "))
	}
	return pair, nil
}

func (e *encryption) stat() []fs.FileInfo {
	files := make([]fs.FileInfo, 3)
	for i, name := range []string{e.caFile, e.certFile, e.keyFile} {
		if name == "" {
			continue
		}
		if info, err := os.Stat(name); err == nil {
			files[i] = info
		}
	}
	return files
}

func isUnchanged(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// current returns the settings for a new connection, and the client certificate. Both must not be modified.
func (e *encryption) current() (cas *x509.CertPool, pair *tls.Certificate) {
	e.mu.Lock()
	var changed bool
	var err error
	if !slices.EqualFunc(e.stat(), e.seen, isUnchanged) {
		changed, err = e.load()
	}
	cas, pair = e.cas, e.pair
	e.mu.Unlock()
	if report := e.report.Load(); report != nil && (changed || err != nil) {
		(*report)(e.names(), err)
	}
	return cas, pair
}

// reload reads the files, even if they seem unchanged, and reports whether a value has changed.
func (e *encryption) reload() (changed bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.load()
}

// names lists the files.
func (e *encryption) names() string {
	files := slices.DeleteFunc([]string{e.caFile, e.certFile, e.keyFile}, func(file string) bool { return file == "" })
	return strings.Join(files, ", ")
}

// errTLS wraps all errors of the TLS handshake, and those by which a server rejects it later.
var errTLS = errors.New("tls handshake")

// errClientCertificate wraps errors of a server that has requested a client certificate and closed the
// connection before its first reply. sent is the certificate that it was sent, or nil.
type errClientCertificate struct {
	sent *tls.Certificate
	err  error
}

func (e *errClientCertificate) Error() string { return e.err.Error() }
func (e *errClientCertificate) Unwrap() error { return e.err }

// secure makes a TLS connection to the server at addr over raw. name is as in dialAddr. It does not close raw.
func (e *encryption) secure(ctx context.Context, raw net.Conn, addr, name string, timeout time.Duration) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	cas, pair := e.current()
	requested := false
	config := &tls.Config{
		ServerName: cmp.Or(name, host), MinVersion: tls.VersionTLS12, RootCAs: cas, InsecureSkipVerify: e.skipVerify,
		// The certificate is sent whatever authorities the server lists. With Certificates, none would be sent
		// if its issuer is not listed, and the server would report that it is missing.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			requested = true
			if pair == nil {
				return &tls.Certificate{}, nil
			}
			return pair, nil
		},
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn := tls.Client(raw, config)
	err = conn.HandshakeContext(ctx)
	switch {
	case err != nil && requested && (isAlert(err) || IsHangUp(err)): // TLS 1.2
		return nil, fmt.Errorf("%w: %w", errTLS, &errClientCertificate{pair, err})
	case IsTimeout(err) && e.hasWorked(addr):
		return nil, err // not a fault of TLS: the server is stalled
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errTLS, err)
	}
	e.setWorked(addr)
	if requested {
		return &certifiedConn{Conn: conn, sent: pair}, nil
	}
	return conn, nil
}

// isAlert reports whether the peer has ended a TLS connection with an alert.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// A certifiedConn is a connection to a server that has requested a client certificate. In TLS 1.3, the
// handshake of the client is complete before the server has checked that certificate. So the
// refusal is an error of the first read, or of the write before it.
type certifiedConn struct {
	net.Conn
	sent    *tls.Certificate // see errClientCertificate
	replied atomic.Bool
}

func (c *certifiedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.replied.Load() {
		c.replied.Store(true)
	}
	return n, c.explain(err)
}

func (c *certifiedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.explain(err)
}

func (c *certifiedConn) explain(err error) error {
	if err == nil || c.replied.Load() || errors.Is(err, net.ErrClosed) || !isAlert(err) && !IsHangUp(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errTLS, &errClientCertificate{c.sent, err})
}
