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

// UserMark stands for the user's name in URLs and headers.
const UserMark = "{user}"

// A Target is where streams are opened.
type Target struct {
	Host string // host[:port], as in the URL
	Addr string // host:port as an address, resolved once
	TLS  bool   // https

	path          string // with the query; UserMark in it
	authorization string // of the URL's user and password; "": none
}

// ParseTarget reads an http:// or https:// URL that may hold UserMark in path and query, and
// resolves its host. A user and password in the URL become an Authorization header.
func ParseTarget(ctx context.Context, rawURL string) (Target, error) {
	const user = "_user_" // url.Parse does not accept braces in a host, which has an error of its own
	u, err := url.Parse(strings.ReplaceAll(rawURL, UserMark, user))
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Opaque != "", strings.Contains(rawURL, " "), !validPort(u.Port()):
		// Not quoted: it may hold a password.
		return Target{}, fmt.Errorf("is not a URL such as http://127.0.0.1:8080/events?user=%s", UserMark)
	case strings.Contains(u.Host, user), strings.Contains(u.User.String(), user):
		return Target{}, fmt.Errorf("%s can stand in path and query only", UserMark)
	case strings.Contains(rawURL, "#"):
		return Target{}, errors.New("has a fragment, which is never sent")
	}
	t := Target{Host: u.Host, TLS: u.Scheme == "https", path: "/"}
	if host, _, zoned := strings.Cut(u.Hostname(), "%"); zoned { // RFC 6874, section 4: a zone is not sent
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

// Templated reports whether the URL holds UserMark.
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

// name is the host for which the certificate must be.
func (t Target) name() string { return (&url.URL{Host: t.Host}).Hostname() }

// validPort accepts an empty port, which means that of the scheme.
func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// CheckLocal is an error unless all addresses of host are this machine's loopback.
func CheckLocal(ctx context.Context, host string) error {
	addrs, err := resolve(ctx, host)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if !a.Unmap().IsLoopback() {
			return notHere(host, a)
		}
	}
	return nil
}

// resolve finds at least one address. A name that only means this machine needs no
// resolver.
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
		return nil, fmt.Errorf("%s cannot be resolved: %w", host, err)
	}
	for i, a := range addrs { // IPv4 first: what most hubs listen on
		if a = a.Unmap(); a.Is4() {
			addrs[0], addrs[i] = a, addrs[0]
			break
		}
	}
	return addrs, nil
}

// A Header is one line of each request. Its value may hold UserMark.
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

// fields are the headers of a user's stream at a target, as a browser would send them.
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

func notHere(host string, a netip.Addr) error {
	if host == a.String() {
		return fmt.Errorf("%s is not this machine", host)
	}
	return fmt.Errorf("%s (%s) is not this machine", host, a)
}
