package auth_test

import (
	"errors"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"usercast/auth"
)

func TestHeaderTrustsOnlyProxies(t *testing.T) {
	ask := auth.Header("X-User-ID", auth.Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}, false)
	tests := []struct {
		remote string
		users  []string
		topics []string
		want   auth.Identity
		err    error
	}{
		{"10.1.2.3:1", []string{"42"}, nil, auth.Identity{User: "42"}, nil},
		{"[fd00::1]:1", []string{"42"}, nil, auth.Identity{User: "42"}, nil},
		{"[fd00::1%eth0]:1", []string{"42"}, nil, auth.Identity{User: "42"}, nil},
		{"[::ffff:10.0.0.1]:1", []string{"42"}, nil, auth.Identity{User: "42"}, nil},
		{"10.1.2.3:1", []string{"42"}, []string{"a,b"}, auth.Identity{User: "42", Topics: []string{"a", "b"}}, nil},
		{"10.1.2.3:1", []string{"42"}, []string{`a,b,a,"b","",""`, "b"}, auth.Identity{User: "42", Topics: []string{"a", "b", ""}}, nil},
		{"10.1.2.3:1", []string{"42"}, []string{`"`}, auth.Identity{}, auth.ErrUnauthorized},
		{"10.1.2.3:1", []string{"caf\xe9"}, nil, auth.Identity{User: "café"}, nil},
		{"10.1.2.3:1", []string{"M\xfcller \xc3\xa9"}, []string{"\xfc, é"}, auth.Identity{User: "Müller Ã©", Topics: []string{"ü", "Ã©"}}, nil},
		{"10.1.2.3:1", []string{"caf\xe9\x85"}, nil, auth.Identity{}, auth.ErrBadUser}, // a control character of ISO-8859-1
		{"10.1.2.3:1", []string{"42"}, []string{"\xff\x80"}, auth.Identity{}, auth.ErrUnauthorized},
		{"10.1.2.3:1", []string{"Doe, John"}, nil, auth.Identity{User: "Doe, John"}, nil},
		{"10.1.2.3:1", []string{""}, nil, auth.Identity{}, auth.ErrBadUser},
		{"10.1.2.3:1", []string{"café"}, nil, auth.Identity{User: "café"}, nil},
		{"10.1.2.3:1", nil, nil, auth.Identity{}, auth.ErrUnauthorized},
		{"10.1.2.3:1", []string{"42", "43"}, nil, auth.Identity{}, auth.ErrUnauthorized},
		{"10.1.2.3:1", []string{"42", "42"}, nil, auth.Identity{}, auth.ErrUnauthorized},
		{"11.0.0.1:1", []string{"42"}, nil, auth.Identity{}, auth.ErrUnauthorized},
		{"127.0.0.1:1", []string{"42"}, nil, auth.Identity{}, auth.ErrUnauthorized},
		{"[::1]:1", []string{"42"}, nil, auth.Identity{}, auth.ErrUnauthorized},
		{"", []string{"42"}, nil, auth.Identity{}, auth.ErrUnauthorized},
		{"@", []string{"42"}, nil, auth.Identity{}, auth.ErrUnauthorized},
		{"unix:", []string{"42"}, nil, auth.Identity{}, auth.ErrUnauthorized},
	}
	for _, test := range tests {
		r := httptest.NewRequest("GET", "/events", nil)
		r.RemoteAddr = test.remote
		r.Header["X-User-Id"], r.Header["X-User-Topics"] = test.users, test.topics
		r.Header.Set("X-Forwarded-For", "10.1.2.3") // must be ignored
		id, err := ask(r)
		if id.User != test.want.User || !slices.Equal(id.Topics, test.want.Topics) || !errors.Is(err, test.err) {
			t.Errorf("%s, user %q, topics %q: %+v, %v; want %+v, %v", test.remote, test.users, test.topics, id, err, test.want, test.err)
		}
	}
}

// A zero Prefix may result from an error that a program has ignored. It trusts nobody.
func TestZeroPrefixTrustsNoUnixSocket(t *testing.T) {
	r := httptest.NewRequest("GET", "/events", nil)
	r.RemoteAddr = "unix:"
	r.Header.Set("X-User-ID", "42")
	if _, err := auth.Header("", auth.Proxies{{}}, false)(r); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("a zero Prefix: %v", err)
	}
	if id, err := auth.Header("", auth.Proxies{auth.UnixSocket}, false)(r); err != nil || id.User != "42" {
		t.Errorf("UnixSocket: %+v, %v", id, err)
	}
	if auth.UnixSocket.IsValid() {
		t.Error("UnixSocket is a network")
	}
}
