package auth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"usercast/auth"
)

// list returns the names as an element of a list in a header.
func list(names []string) string {
	var quoted []string
	for _, name := range names {
		quoted = append(quoted, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)+`"`)
	}
	return strings.Join(quoted, ", ")
}

// groupSources authenticate user 42 with groups, by mode. If groups are not enabled, they must be ignored.
var groupSources = map[string]func(t *testing.T, enabled bool, groups []string) (auth.Identity, error){
	"insecure": func(_ *testing.T, enabled bool, groups []string) (auth.Identity, error) {
		ask := auth.Insecure
		if enabled {
			ask = auth.InsecureGroups
		}
		return ask(httptest.NewRequest("GET", "/events?"+url.Values{"user": {"42"}, "group": groups}.Encode(), nil))
	},
	"header": func(_ *testing.T, enabled bool, groups []string) (auth.Identity, error) {
		r := httptest.NewRequest("GET", "/events", nil)
		r.Header.Set("X-User-ID", "42")
		r.Header.Set("X-User-Groups", list(groups))
		return auth.Header("", auth.Proxies{netip.MustParsePrefix("192.0.2.1/32")}, enabled)(r)
	},
	"jwt": func(t *testing.T, enabled bool, groups []string) (auth.Identity, error) {
		cfg := auth.JWTConfig{Secret: secret}
		if enabled {
			cfg.GroupsClaim = "groups"
		}
		claims, err := json.Marshal(map[string]any{"sub": "42", "exp": time.Now().Unix() + 60, "groups": groups})
		if err != nil {
			t.Fatal(err)
		}
		return newJWT(t, cfg).Authenticate(bearer(sign(t, jwt.SigningMethodHS256, secret, "", string(claims))))
	},
	"forward": func(t *testing.T, enabled bool, groups []string) (auth.Identity, error) {
		f := newApp(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User-ID", "42")
			w.Header().Set("X-User-Groups", list(groups))
		}).forward(t, auth.ForwardConfig{Groups: enabled})
		return f.Authenticate(from("42"))
	},
}

func TestGroupsOfEachMode(t *testing.T) {
	t.Parallel()
	many := make([]string, 300)
	for i := range many {
		many[i] = fmt.Sprint("team-", i)
	}
	for mode, ask := range groupSources {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			for _, test := range []struct{ groups, want []string }{
				{nil, nil},
				{[]string{"team-7"}, []string{"team-7"}},
				{[]string{"team-7", "b", "team-7", "a", "b"}, []string{"team-7", "b", "a"}},
				{[]string{"a, b", `"`, `\`, " x ", "Müller", "42"}, []string{"a, b", `"`, `\`, " x ", "Müller", "42"}},
				{[]string{"", "*", "a:b"}, []string{"", "*", "a:b"}}, // CheckGroups rejects them later
				{many, many},
			} {
				id, err := ask(t, true, test.groups)
				if err != nil || id.User != "42" || !slices.Equal(id.Groups, test.want) {
					t.Errorf("groups %.100q: %+v, %v", test.groups, id, err)
				}
				id, err = ask(t, false, test.groups)
				if err != nil || id.User != "42" || id.Groups != nil {
					t.Errorf("groups %.100q, which are disabled: %+v, %v", test.groups, id, err)
				}
			}
		})
	}
}

// What cannot be a list of groups is rejected. It is not even read if groups are disabled.
func TestInvalidGroups(t *testing.T) {
	t.Parallel()
	temporary := errors.New("temporary")
	header := func(lines ...string) func(t *testing.T, enabled bool) (auth.Identity, error) {
		return func(_ *testing.T, enabled bool) (auth.Identity, error) {
			r := httptest.NewRequest("GET", "/events", nil)
			r.Header.Set("X-User-ID", "42")
			r.Header["X-User-Groups"] = lines
			return auth.Header("", auth.Proxies{netip.MustParsePrefix("192.0.2.1/32")}, enabled)(r)
		}
	}
	forward := func(lines ...string) func(t *testing.T, enabled bool) (auth.Identity, error) {
		return func(t *testing.T, enabled bool) (auth.Identity, error) {
			f := newApp(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-User-ID", "42")
				w.Header()["X-User-Groups"] = lines
			}).forward(t, auth.ForwardConfig{Groups: enabled})
			return f.Authenticate(from("42"))
		}
	}
	token := func(claim, payload string) func(t *testing.T, enabled bool) (auth.Identity, error) {
		return func(t *testing.T, enabled bool) (auth.Identity, error) {
			cfg := auth.JWTConfig{Secret: secret}
			if enabled {
				cfg.GroupsClaim = claim
			}
			return newJWT(t, cfg).Authenticate(bearer(sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"42","exp":9e9,`+payload+`}`)))
		}
	}
	for name, test := range map[string]struct {
		ask    func(t *testing.T, enabled bool) (auth.Identity, error)
		groups []string
		err    error
		text   string // of the error, or of its hint
	}{
		"header: a list":                 {header(`a,b,, "c"`), []string{"a", "b", "c"}, nil, ""},
		"header: empty":                  {header(""), nil, nil, ""},
		"header: ISO-8859-1":             {header("M\xfcller, é"), []string{"Müller", "é"}, nil, ""},
		"header: equal names":            {header("\xfc, ü"), []string{"ü"}, nil, ""},
		"header: an unclosed quote":      {header(`a,"b`), nil, auth.ErrUnauthorized, "X-User-Groups is not a list"},
		"header: neither character set":  {header("a, caf\xe9\x85"), nil, auth.ErrBadUser, `invalid group "caf\xe9\x85": it is neither`},
		"header: a browser's, too":       {header("a", "b"), nil, auth.ErrUnauthorized, "more than one X-User-Groups"},
		"forward: two lines":             {forward("a", "b"), []string{"a", "b"}, nil, ""},
		"forward: an unclosed quote":     {forward(`a,"b`), nil, temporary, "X-User-Groups is not a list"},
		"forward: ISO-8859-1":            {forward("a, caf\xe9"), nil, auth.ErrBadUser, `invalid group "caf\xe9": it is not valid UTF-8`},
		"jwt: integers":                  {token("groups", `"groups":[7,"a",9007199254740993,"7"]`), []string{"7", "a", "9007199254740993"}, nil, ""},
		"jwt: null":                      {token("groups", `"groups":null`), nil, nil, ""},
		"jwt: absent":                    {token("groups", `"other":["a"]`), nil, nil, ""},
		"jwt: an empty list":             {token("groups", `"groups":[]`), nil, nil, ""},
		"jwt: a nested claim":            {token("realm.roles", `"realm":{"roles":["a"]}`), []string{"a"}, nil, ""},
		"jwt: a claim with a dot":        {token("https://app.example/groups", `"https://app.example/groups":["a"]`), []string{"a"}, nil, ""},
		"jwt: a string":                  {token("groups", `"groups":"a"`), nil, auth.ErrUnauthorized, "groups claim is not a list"},
		"jwt: an object":                 {token("groups", `"groups":{"a":true}`), nil, auth.ErrUnauthorized, "--jwt-groups-claim"},
		"jwt: a fraction":                {token("groups", `"groups":["a",1.5]`), nil, auth.ErrUnauthorized, "groups claim is not a list"},
		"jwt: a list in a list":          {token("groups", `"groups":[["a"]]`), nil, auth.ErrUnauthorized, "groups claim is not a list"},
		"jwt: null in a list":            {token("groups", `"groups":[null]`), nil, auth.ErrUnauthorized, "groups claim is not a list"},
		"jwt: a control character":       {token("groups", `"groups":["a","b\n"]`), nil, auth.ErrBadUser, `invalid group "b\n": it contains control characters`},
		"jwt: half of a surrogate pair":  {token("groups", `"groups":["\ud800"]`), nil, auth.ErrBadUser, "not valid UTF-8"},
		"jwt: before the expiry is read": {token("groups", `"groups":["a"],"nbf":8e9`), nil, temporary, "nbf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, err := test.ask(t, true)
			rejected := err != nil && (errors.Is(err, test.err) || test.err == temporary && !auth.IsPermanent(err))
			if !slices.Equal(id.Groups, test.groups) || (err != nil) != (test.err != nil) || err != nil && !rejected {
				t.Errorf("%+v, %v; want %q, %v", id, err, test.groups, test.err)
			}
			if err != nil && !strings.Contains(err.Error()+auth.Hint(err), test.text) {
				t.Errorf("%v, hint %q; neither contains %q", err, auth.Hint(err), test.text)
			}
			if strings.Contains(test.text, "nbf") {
				return
			}
			if id, err := test.ask(t, false); err != nil || id.User != "42" || id.Groups != nil {
				t.Errorf("groups are disabled: %+v, %v", id, err)
			}
		})
	}
}

func TestCheckGroups(t *testing.T) {
	t.Parallel()
	names := func(n int) []string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprint(i)
		}
		return all
	}
	for _, test := range []struct {
		names        []string
		limit        int
		separator    byte
		reason, hint string // "": accepted
	}{
		{nil, 64, ':', "", ""},
		{names(64), 64, ':', "", ""},
		{names(65), 64, ':', "a member of 65 groups, and at most 64 are allowed (--max-groups)", "raise --max-groups"},
		{names(2), 1, ':', "a member of 2 groups, and at most 1 ", "--max-groups"},
		{names(5000), 0, ':', "", ""},
		{names(5000), -1, ':', "", ""},
		{[]string{"a*", "**", " ", "Müller", "all", "ann@example.com", "user-42"}, 64, ':', "", ""},
		{[]string{"a", "*"}, 64, ':', `invalid group "*": * does not stand for all groups`, "list each group"},
		{[]string{"a", ""}, 64, ':', `invalid group "": it is empty`, "have a name"},
		{[]string{"a", "team:7"}, 64, ':', `invalid group "team:7": it contains ':', which separates group and topic (--topic-separator)`,
			"set --topic-separator to a character that no group name contains, such as /, and publish to <prefix><group>/<topic>"},
		{[]string{"a", "team:7"}, 64, '/', "", ""},
		{[]string{"/sales/eu"}, 64, '/', `invalid group "/sales/eu": it contains '/'`, "such as |"},
		{[]string{strings.Repeat("é", 4000) + ":"}, 64, ':', strings.Repeat("é", 50) + `…": it contains`, "--topic-separator"},
		{[]string{"\x1b[31m:"}, 64, ':', `invalid group "\x1b[31m:"`, "--topic-separator"},
	} {
		err := auth.CheckGroups(test.names, test.limit, test.separator)
		switch {
		case test.reason == "" && err != nil:
			t.Errorf("%.100q, at most %d: %v", test.names, test.limit, err)
		case test.reason == "":
		case !errors.Is(err, auth.ErrBadUser) || !strings.Contains(err.Error(), test.reason) || !strings.Contains(auth.Hint(err), test.hint):
			t.Errorf("%.100q, at most %d: %v, hint %q", test.names, test.limit, err, auth.Hint(err))
		case len(err.Error()) > 300 || strings.Contains(err.Error(), "user id"):
			t.Errorf("%.100q: %v", test.names, err)
		}
	}
}
