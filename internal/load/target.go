package load

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// UserMark is replaced by the name of the user in URLs and headers.
const UserMark = "{user}"

// A Target is a URL at which streams are opened.
type Target struct {
	Host string // host[:port], as in the URL
	Addr string // host:port as an address, resolved once
	TLS  bool   // https

	path          string // with the query; UserMark in it
	authorization string // header value for the user and password in the URL; "" without them
}

// ParseTarget parses an http:// or https:// URL and resolves its host. The path and the query can contain UserMark. A user
// and password in the URL become an Authorization header.
func ParseTarget(ctx context.Context, rawURL string) (Target, error) {
	const user = "_user_" // url.Parse rejects braces in a host, and ParseTarget has a better error for them
	u, err := url.Parse(strings.ReplaceAll(rawURL, UserMark, user))
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Opaque != "", strings.Contains(rawURL, " "), !validPort(u.Port()):
		// The URL is not quoted, because it can contain a password.
		return Target{}, fmt.Errorf("invalid URL; use a URL such as http://127.0.0.1:8080/events?user=%s", UserMark)
	case strings.Contains(u.Host, user), strings.Contains(u.User.String(), user):
		return Target{}, fmt.Errorf("%s is only allowed in the path and the query", UserMark)
	case strings.Contains(rawURL, "#"):
		return Target{}, errors.New("must not have a fragment, because fragments are not sent")
	}
	t := Target{Host: u.Host, TLS: u.Scheme == "https", path: "/"}
	if host, _, zoned := strings.Cut(u.Hostname(), "%"); zoned { // a zone is not sent (RFC 6874, section 4)
		t.Host = "[" + host + "]"
		if u.Port() != "" {
			t.Host += ":" + u.Port()
		}
	}
	if u.User != nil {
		password, _ := u.User.Password()
		t.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
	}
	port := cmp.Or(u.Port(), map[bool]string{false: "80", true: "443"}[t.TLS])
	_, rest, _ := strings.Cut(rawURL, "://")
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		t.path = rest[i:]
	}
	if !strings.HasPrefix(t.path, "/") {
		t.path = "/" + t.path
	}
	addrs, err := resolve(ctx, u.Hostname())
	if err != nil {
		return Target{}, err
	}
	t.Addr = net.JoinHostPort(addrs[0].String(), port)
	return t, nil
}

// Templated reports whether the URL contains UserMark.
func (t Target) Templated() bool { return strings.Contains(t.path, UserMark) }

// WithUser adds user=<UserMark> to the query.
func (t Target) WithUser() Target {
	sep := "?"
	if strings.Contains(t.path, "?") {
		sep = "&"
	}
	t.path += sep + "user=" + UserMark
	return t
}

func (t Target) String() string { return t.scheme() + "://" + t.Host + t.path }

func (t Target) scheme() string {
	if t.TLS {
		return "https"
	}
	return "http"
}

// name returns the host name that the certificate must have.
func (t Target) name() string { return (&url.URL{Host: t.Host}).Hostname() }

// validPort accepts an empty port, which means the default port of the scheme.
func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// CheckLocal returns an error unless all addresses of host are loopback addresses.
func CheckLocal(ctx context.Context, host string) error {
	addrs, err := resolve(ctx, host)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if !a.Unmap().IsLoopback() {
			return errNotLocal(host, a)
		}
	}
	return nil
}

// resolve returns at least one address. IP addresses do not need a resolver.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot resolve %s: %w", host, err)
	}
	for i, a := range addrs { // IPv4 first, because most hubs listen on it
		if a = a.Unmap(); a.Is4() {
			addrs[0], addrs[i] = a, addrs[0]
			break
		}
	}
	return addrs, nil
}

// A Header is a header of each request. Its value can contain UserMark.
type Header struct{ Name, Value string }

// ParseHeader reads "Name: value".
func ParseHeader(line string) (Header, error) {
	name, value, ok := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
		return Header{}, errors.New("a header must have the form 'Name: value'")
	}
	switch http.CanonicalHeaderKey(name) {
	case "Host", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade":
		return Header{}, fmt.Errorf("%s cannot be set", name)
	}
	return Header{name, value}, nil
}

// A field is a header for one stream.
type field struct{ name, lower, value string }

// fields returns the headers of the request for a user's stream, as a browser would send them.
func (c *Config) fields(t Target, user int) []field {
	list := []field{{"Accept", "accept", "text/event-stream"}, {"Cache-Control", "cache-control", "no-cache"}}
	if t.authorization != "" {
		list = append(list, field{"Authorization", "authorization", t.authorization})
	}
	for _, h := range c.Headers {
		list = append(list, field{h.Name, strings.ToLower(h.Name), expand(h.Value, user)})
	}
	return list
}

func expand(template string, user int) string {
	return strings.ReplaceAll(template, UserMark, strconv.Itoa(user))
}

func errNotLocal(host string, a netip.Addr) error {
	if host == a.String() {
		return fmt.Errorf("%s is not a loopback address", host)
	}
	return fmt.Errorf("%s (%s) is not a loopback address", host, a)
}
