package flags

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"

	"usercast/internal/unixsocket"
)

// Address adds an error unless the address has the form host:port.
func (e *Errors) Address(flag, address string) {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		e.Add(flag, "invalid address %q; use host:port, such as 127.0.0.1:8080 or :8080", address)
	}
}

// Listener adds an error unless the address has the form host:port, or is that of a Unix socket.
func (e *Errors) Listener(flag, address string) {
	switch _, err := unixsocket.Parse(address); {
	case err == nil:
	case unixsocket.Is(address):
		e.Add(flag, "invalid address %q: %w", address, err)
	case strings.HasPrefix(address, "/"):
		e.Add(flag, "invalid address %q; use unix:%s for a Unix socket", address, address)
	default:
		e.Address(flag, address)
	}
}

// URL parses an http or https URL. For any other text, it adds an error and returns nil.
func (e *Errors) URL(flag, text, example string) *url.URL {
	u, err := url.Parse(text)
	switch {
	case text == "":
		e.Add(flag, "required, for example %s", example)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !isPort(u.Port()):
		e.Add(flag, "invalid URL; use a URL such as %s", example) // the text is not quoted, because it may contain a password
	case u.Fragment != "":
		e.Add(flag, "must not have a fragment, because fragments are not sent")
	default:
		return u
	}
	return nil
}

// isPort also accepts an empty port, which means the default port of the scheme.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// IsLoopback reports whether the address of a listener is a loopback address or a Unix socket, to which only this host can
// connect.
func IsLoopback(address string) bool {
	if unixsocket.Is(address) {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Client returns an HTTP client for the listener at address, and the host for its URLs. The client ignores HTTP_PROXY: it
// connects directly. It uses a connection for one request only.
func Client(address string) (client *http.Client, host string) {
	transport := &http.Transport{DisableKeepAlives: true}
	client = &http.Client{Transport: transport}
	path := unixsocket.Path(address)
	if path == "" {
		return client, Dialable(address)
	}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return client, "localhost"
}

// Dialable returns an address at which this host can connect to a listener. It replaces an empty or unspecified host, such
// as 0.0.0.0, with a loopback address.
func Dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}

// ReadSecret reads a secret from a file, without the newline at the end and the byte order mark (BOM) at the beginning
// that editors add. An empty secret is an error.
func ReadSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(strings.TrimPrefix(string(b), "\ufeff"), "\r\n")
	if secret == "" {
		return "", errors.New("the file " + file + " is empty")
	}
	return secret, nil
}

// ReadToken is ReadSecret for a bearer token, which clients send in a header. A token with a control character cannot be sent,
// and servers remove spaces at the end of a header.
func ReadToken(file string) (string, error) {
	token, err := ReadSecret(file)
	switch {
	case err != nil:
		return "", err
	case strings.ContainsAny(token, "\r\n"):
		return "", errors.New("the token in " + file + " has a line break, so no request can contain it; write the token on one line")
	case strings.ContainsFunc(token, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return "", errors.New("the token in " + file + " has a control character, so no request can contain it; use printable characters")
	case strings.HasSuffix(token, " "), strings.HasSuffix(token, "\t"):
		return "", errors.New("the token in " + file + " ends with a space, so no request can contain it; remove the space")
	}
	return token, nil
}
