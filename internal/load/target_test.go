package load

import (
	"strings"
	"testing"
)

func TestTargets(t *testing.T) {
	for url, want := range map[string]Target{
		"http://127.0.0.1:8080/events?user={user}": {Host: "127.0.0.1:8080", Addr: "127.0.0.1:8080", path: "/events?user={user}"},
		"http://127.0.0.1/u/{user}/events":         {Host: "127.0.0.1", Addr: "127.0.0.1:80", path: "/u/{user}/events"},
		"http://[::1]:81":                          {Host: "[::1]:81", Addr: "[::1]:81", path: "/"},
		"http://[::1]:81?a=b":                      {Host: "[::1]:81", Addr: "[::1]:81", path: "/?a=b"},
		"http://[fe80::1%25eth0]/":                 {Host: "[fe80::1]", Addr: "[fe80::1%eth0]:80", path: "/"},
		"https://127.0.0.1/e?a=b":                  {Host: "127.0.0.1", Addr: "127.0.0.1:443", TLS: true, path: "/e?a=b"},
		"HTTPS://[::1]:8443":                       {Host: "[::1]:8443", Addr: "[::1]:8443", TLS: true, path: "/"},
		"http://ann:p%40ss@127.0.0.1/":             {Host: "127.0.0.1", Addr: "127.0.0.1:80", path: "/", authorization: "Basic YW5uOnBAc3M="},
	} {
		if got, err := ParseTarget(t.Context(), url); err != nil || got != want {
			t.Errorf("%s: %+v, %v", url, got, err)
		}
	}
	for bad, want := range map[string]string{
		"": "invalid URL", "127.0.0.1:8080": "invalid URL", "http://": "invalid URL", "http://127.0.0.1/a b": "invalid URL",
		"http://{user}/": "is only allowed in the path and the query", "http://{user}:x@127.0.0.1/": "is only allowed in the path and the query",
		"http://127.0.0.1/#x": "must not have a fragment", "wss://127.0.0.1/": "invalid URL", "http://127.0.0.1:99999/": "invalid URL",
	} {
		if got, err := ParseTarget(t.Context(), bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", bad, got, err, want)
		}
	}
	if got := (Target{Host: "a:1", TLS: true, path: "/e", authorization: "Basic x"}).String(); got != "https://a:1/e" {
		t.Errorf("a target reads %s", got)
	}
	for have, want := range map[string]string{"/e": "/e?user={user}", "/e?a=b": "/e?a=b&user={user}"} {
		if got := (Target{path: have}).WithUser(); got.path != want || !got.Templated() {
			t.Errorf("%s becomes %s", have, got.path)
		}
	}
}

func TestCheckLocal(t *testing.T) {
	for host, local := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "localhost": true, "::ffff:127.0.0.1": true,
		"0.0.0.0": false, "192.0.2.1": false, "2001:db8::1": false, "::ffff:192.0.2.1": false, "": false,
	} {
		if err := CheckLocal(t.Context(), host); (err == nil) != local {
			t.Errorf("%q: %v", host, err)
		}
	}
}

func TestHeaders(t *testing.T) {
	if h, err := ParseHeader("Cookie: a={user}; b=c:d"); err != nil || h != (Header{"Cookie", "a={user}; b=c:d"}) {
		t.Errorf("%+v, %v", h, err)
	}
	for _, bad := range []string{"", "Cookie", ": x", "A B: c", "A: b\r\nC: d", "Host: x", "connection: close"} {
		if h, err := ParseHeader(bad); err == nil {
			t.Errorf("%q is accepted as %+v", bad, h)
		}
	}
}
