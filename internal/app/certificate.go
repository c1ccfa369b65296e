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

// A certificate is that of the public listener. Each handshake checks whether
// the files have changed: no program must notify the hub that they were renewed, and no
// file watcher can miss how they were replaced. Open streams are not affected.
//
// It is safe for concurrent use.
type certificate struct {
	// Immutable.
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate // guarded by mu: the last that could be loaded
	seen    []fs.FileInfo    // guarded by mu: both files when that was last tried; nil: missing
}

// newCertificate loads the pair, which has passed Check.
func newCertificate(certFile, keyFile string, log *slog.Logger) (c *certificate, err error) {
	c = &certificate{certFile: certFile, keyFile: keyFile, log: log}
	c.seen = c.stat()
	c.current, err = LoadCertificate(certFile, keyFile)
	return c, err
}

func (c *certificate) stat() []fs.FileInfo { return statFiles([]string{c.certFile, c.keyFile}) }

// get is for tls.Config.GetCertificate. If a changed pair cannot be loaded, because one of the
// files is not written yet, it logs that once and returns the previous pair.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Before they are read: a change in between is another change.
	files := c.stat()
	if slices.EqualFunc(files, c.seen, isUnchanged) {
		return c.current, nil
	}
	c.seen = files
	loaded, err := LoadCertificate(c.certFile, c.keyFile)
	if err != nil {
		c.log.Warn("changed certificate cannot be loaded, the one before is kept", slog.Any("error", err))
		return c.current, nil
	}
	c.current = loaded
	c.log.Info("certificate loaded anew", slog.String("file", c.certFile))
	return c.current, nil
}

// reload loads the pair, also if the files seem unchanged, and reports whether it is
// another one.
func (c *certificate) reload() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = c.stat() // the caller reports an error, and no handshake does
	loaded, err := LoadCertificate(c.certFile, c.keyFile)
	if err != nil {
		return false, err
	}
	changed = !slices.EqualFunc(loaded.Certificate, c.current.Certificate, bytes.Equal)
	c.current = loaded
	return changed, nil
}

// A pairError is an error of one of the two flags.
type pairError struct {
	flag string
	error
}

func (e pairError) Unwrap() error { return e.error }

// LoadCertificate reads a certificate with its chain, and its key.
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
		return nil, pairError{"tls-cert", fmt.Errorf("%s and %s are no certificate and its key: %s",
			certFile, keyFile, strings.TrimPrefix(err.Error(), "tls: "))}
	}
	return &pair, nil
}

// checkCertificate requires both files or none, and that they are a pair.
func checkCertificate(errs *flags.Errors, certFile, keyFile string) {
	switch {
	case certFile == "" && keyFile == "":
	case keyFile == "":
		errs.Add("tls-key", "give it with --tls-cert")
	case certFile == "":
		errs.Add("tls-cert", "give it with --tls-key")
	default:
		_, err := LoadCertificate(certFile, keyFile)
		if pair := (pairError{}); errors.As(err, &pair) {
			errs.Check(pair.flag, pair.error)
		}
	}
}
