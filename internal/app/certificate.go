package app

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"usercast/internal/flags"
)

// A certificate holds the TLS certificate of the public listener. Each handshake checks whether the files have changed, so
// that renewals need no signal and no file watcher. Open streams are not affected. It is safe for concurrent use.
type certificate struct {
	// Immutable.
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate // guarded by mu: the last valid pair
	seen    []fs.FileInfo    // guarded by mu: state of both files at the last attempt; nil for a missing file
}

// newCertificate loads the pair. The config has passed Check.
func newCertificate(certFile, keyFile string, log *slog.Logger) (c *certificate, err error) {
	c = &certificate{certFile: certFile, keyFile: keyFile, log: log}
	c.seen = c.stat()
	c.current, err = LoadCertificate(certFile, keyFile)
	return c, err
}

func (c *certificate) stat() []fs.FileInfo { return statFiles([]string{c.certFile, c.keyFile}) }

// get implements tls.Config.GetCertificate. If a changed pair cannot be loaded, for example because only one of the files
// is written yet, it logs the error once and returns the previous pair.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The state is read before the files, so that the next handshake detects a change in between.
	files := c.stat()
	if slices.EqualFunc(files, c.seen, isUnchanged) {
		return c.current, nil
	}
	c.seen = files
	loaded, err := LoadCertificate(c.certFile, c.keyFile)
	if err != nil {
		c.log.Warn("certificate reload failed, keeping previous certificate", slog.Any("error", err))
		return c.current, nil
	}
	c.current = loaded
	c.log.Info("certificate reloaded", slog.String("file", c.certFile))
	return c.current, nil
}

// reload loads the pair, even if the files seem unchanged, and reports whether the certificate has changed.
func (c *certificate) reload() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = c.stat() // the caller logs the error, so the next handshake must not
	loaded, err := LoadCertificate(c.certFile, c.keyFile)
	if err != nil {
		return false, err
	}
	changed = !slices.EqualFunc(loaded.Certificate, c.current.Certificate, bytes.Equal)
	c.current = loaded
	return changed, nil
}

// A pairError is an error about one of the two flags.
type pairError struct {
	flag string
	error
}

func (e pairError) Unwrap() error { return e.error }

// LoadCertificate reads a certificate with its chain and its private key.
func LoadCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return nil, pairError{"tls-cert", err}
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, pairError{"tls-key", err}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, pairError{"tls-cert", fmt.Errorf("%s and %s are not a matching certificate and key: %s",
			certFile, keyFile, strings.TrimPrefix(err.Error(), "tls: "))}
	}
	return &pair, nil
}

// checkCertificate adds an error if only one of the files is set, or if they do not match.
func checkCertificate(errs *flags.Errors, certFile, keyFile string) {
	switch {
	case certFile == "" && keyFile == "":
	case keyFile == "":
		errs.Add("tls-key", "required with --tls-cert")
	case certFile == "":
		errs.Add("tls-cert", "required with --tls-key")
	default:
		_, err := LoadCertificate(certFile, keyFile)
		if pair := (pairError{}); errors.As(err, &pair) {
			errs.Check(pair.flag, pair.error)
		}
	}
}
