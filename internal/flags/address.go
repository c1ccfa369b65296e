package flags

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Address requires host:port.
func (e *Errors) Address(flag, address string) {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		e.Add(flag, "%q is not an address such as 127.0.0.1:8080 or :8080", address)
	}
}

// URL requires http or https, and returns nil for everything else.
func (e *Errors) URL(flag, text, example string) *url.URL {
	u, err := url.Parse(text)
	switch {
	case text == "":
		e.Add(flag, "is needed, such as %s", example)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !isPort(u.Port()):
		e.Add(flag, "is not a URL such as %s", example) // unquoted: it may hold a password
	case u.Fragment != "":
		e.Add(flag, "has a fragment, which is never sent")
	default:
		return u
	}
	return nil
}

// isPort accepts an empty port, which is that of the scheme.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// IsLoopback reports whether only this machine can connect to the address of a listener.
func IsLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Dialable turns the address of a listener into one to connect to: 0.0.0.0 and an empty
// host mean this machine.
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

// ReadSecret reads a secret from a file, without the line end that editors add.
func ReadSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(b), "\r\n")
	if secret == "" {
		return "", errors.New("the file " + file + " is empty")
	}
	return secret, nil
}
