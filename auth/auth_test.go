package auth_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"usercast/auth"
)

func TestCheckUser(t *testing.T) {
	tests := []struct {
		id, broadcast string
		want          error
	}{
		{"42", "*", nil},
		{"ann@example.com", "*", nil},
		{"**", "*", nil},
		{"a*", "*", nil},
		{" ", "*", nil},
		{"usér", "*", nil},
		{strings.Repeat("x", 1<<20), "*", nil},
		{"", "*", auth.ErrBadUser},
		{"", "", auth.ErrBadUser},
		{"*", "*", auth.ErrBadUser},
		{"*", "", auth.ErrBadUser}, // even if broadcasts are disabled or have another id
		{"*", "everybody", auth.ErrBadUser},
		{"everybody", "everybody", auth.ErrBadUser},
		{"everybody", "*", nil},
		{"42:activity", "*", auth.ErrBadUser},
		{":", "*", auth.ErrBadUser},
		{"42:", "", auth.ErrBadUser},
		{":42", "", auth.ErrBadUser},
	}
	for _, test := range tests {
		if err := auth.CheckUser(test.id, test.broadcast, ':'); !errors.Is(err, test.want) {
			t.Errorf("user %.20q, broadcast %q: %v, want %v", test.id, test.broadcast, err, test.want)
		}
	}
}

// The log line of a rejection must name the flag that helps.
func TestReservedUserNamesTheReasonAndTheFlag(t *testing.T) {
	for _, test := range []struct {
		id, broadcast string
		separator     byte
		reason, hint  string
	}{
		{"f:0b1c:alice", "*", ':', "contains ':', which separates user and topic (--topic-separator)", "set --topic-separator to a character that no user id contains, such as /, and publish to <prefix><user>/<topic>"},
		{"a/b", "*", '/', "contains '/'", "such as |, and publish to <prefix><user>|<topic>"},
		{"https://idp.example/u/1", "*", ':', "contains ':'", "such as |, and publish to <prefix><user>|<topic>"},
		{"/|;,~!#:", "*", ':', "contains ':'", "no user id contains, and publish to <prefix><user><separator><topic>"},
		{"all", "all", ':', "--broadcast-user", "set --broadcast-user"},
		{"*", "all", ':', "* stands for all users", "another id"},
		{"", "*", ':', "empty", "send an id for this user"},
	} {
		err := auth.CheckUser(test.id, test.broadcast, test.separator)
		if err == nil || !errors.Is(err, auth.ErrBadUser) || !strings.Contains(err.Error(), test.reason) || !strings.Contains(auth.Hint(err), test.hint) {
			t.Errorf("%q: %v, hint %q", test.id, err, auth.Hint(err))
		}
	}
	if err := auth.CheckUser("f:0b1c:alice", "*", '/'); err != nil {
		t.Error(err)
	}
}

func TestInsecure(t *testing.T) {
	tests := []struct {
		query, user string
		err         error
	}{
		{"user=42", "42", nil},
		{"topic=a&user=42&ping=event", "42", nil},
		{"user=a%20b%3A%2A", "a b:*", nil}, // CheckUser rejects it later
		{"user=", "", auth.ErrBadUser},
		{"user", "", auth.ErrBadUser},
		{"", "", auth.ErrUnauthorized},
		{"USER=42", "", auth.ErrUnauthorized},
		{"user=1&user=2", "", auth.ErrMalformed},
		{"user=1&user=1", "", auth.ErrMalformed},
	}
	for _, test := range tests {
		id, err := auth.Insecure(httptest.NewRequest("GET", "/events?"+test.query, nil))
		if id.User != test.user || !errors.Is(err, test.err) {
			t.Errorf("?%s: user %q, %v; want %q, %v", test.query, id.User, err, test.user, test.err)
		}
		if err != nil && !strings.Contains(err.Error(), "user") {
			t.Errorf("?%s: %q does not say what is wrong", test.query, err)
		}
	}
}

// The hint for an empty id names the flag or the setting of the mode in use, and no other.
func TestHintForAnEmptyUser(t *testing.T) {
	t.Parallel()
	secret := []byte("0123456789abcdef0123456789abcdef")
	token := sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"","exp":9e9}`)
	proxied := httptest.NewRequest("GET", "/events", nil)
	proxied.Header.Set("X-User-ID", "")
	for name, test := range map[string]struct {
		ask       auth.Authenticator
		request   *http.Request
		want, not string
	}{
		"insecure": {auth.Insecure, httptest.NewRequest("GET", "/events?user=", nil), "?user=<id>", "--"},
		"header":   {auth.Header("", auth.Proxies{netip.MustParsePrefix("192.0.2.1/32")}, false), proxied, "--user-header", "--jwt-claim"},
		"jwt":      {newJWT(t, auth.JWTConfig{Secret: secret}).Authenticate, bearer(token), "--jwt-claim", "--user-header"},
	} {
		_, err := test.ask(test.request)
		if hint := auth.Hint(err); !errors.Is(err, auth.ErrBadUser) || !strings.Contains(hint, test.want) || strings.Contains(hint, test.not) {
			t.Errorf("%s: %v, hint %q", name, err, hint)
		}
	}
}
