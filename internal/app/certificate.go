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

// A certificate is what the public listener shows over TLS. Each handshake looks whether
// the files have changed: whoever renews them has nothing to tell the hub, and no
// watcher is to miss how they were swapped. Streams that are open go on.
//
// It is safe for concurrent use.
type certificate struct {
	// Immutable.
	certFile, keyFile string
	log               *slog.Logger

	mu    sync.Mutex
	shown *tls.Certificate // guarded by mu: the last that could be loaded
	seen  [2]fs.FileInfo   // guarded by mu: both files when that was last tried; nil: missing
}

// newCertificate loads the pair, which check has seen to be one.
func newCertificate(certFile, keyFile string, log *slog.Logger) (c *certificate, err error) {
	c = &certificate{certFile: certFile, keyFile: keyFile, log: log}
	c.seen = c.look()
	c.shown, err = LoadCertificate(certFile, keyFile)
	return c, err
}

// look is how the files are now. Through symbolic links: Kubernetes swaps one for a
// whole directory.
func (c *certificate) look() (files [2]fs.FileInfo) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			files[i] = info
		}
	}
	return files
}

// get is for tls.Config.GetCertificate. A pair that cannot be loaded, for one of the
// files is yet to be written, is warned of once, and the one before is shown.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Before they are read: what changes meanwhile is another change.
	files := c.look()
	if isUnchanged(files[0], c.seen[0]) && isUnchanged(files[1], c.seen[1]) {
		return c.shown, nil
	}
	c.seen = files
	loaded, err := LoadCertificate(c.certFile, c.keyFile)
	if err != nil {
		c.log.Warn("changed certificate cannot be loaded, the one before is kept", slog.Any("error", err))
		return c.shown, nil
	}
	c.shown = loaded
	c.log.Info("certificate loaded anew", slog.String("file", c.certFile))
	return c.shown, nil
}

// reload loads the pair whether the files look changed or not, and reports whether it is
// another one.
func (c *certificate) reload() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = c.look() // a fault is the caller's to report, and no handshake's
	loaded, err := LoadCertificate(c.certFile, c.keyFile)
	if err != nil {
		return false, err
	}
	changed = !slices.EqualFunc(loaded.Certificate, c.shown.Certificate, bytes.Equal)
	c.shown = loaded
	return changed, nil
}

func isUnchanged(now, before fs.FileInfo) bool {
	if now == nil || before == nil {
		return now == before
	}
	return os.SameFile(now, before) && now.Size() == before.Size() && now.ModTime().Equal(before.ModTime())
}

// A pairError says which of the two flags is to be mended.
type pairError struct {
	flag string
	error
}

func (e pairError) Unwrap() error { return e.error }

// LoadCertificate reads a certificate, with those that lead to its authority, and its key.
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

// checkCertificate wants both files or none, and of the two that they are a pair.
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
