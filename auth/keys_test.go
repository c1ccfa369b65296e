package auth

import (
	"net/http"
	"net/url"
	"testing"
)

// After a redirect from https to http, an attacker on the network could replace the keys.
func TestJWKSRedirectsStayOnHTTPS(t *testing.T) {
	to := func(u string) *http.Request {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Request{URL: parsed}
	}
	for _, test := range []struct {
		from, to string
		times    int
		ok       bool
	}{
		{"https", "https://b.example/", 1, true},
		{"https", "http://b.example/", 1, false},
		{"http", "http://b.example/", 1, true},
		{"http", "https://b.example/", 1, true},
		{"https", "https://b.example/", 5, false},
	} {
		if err := followFrom(test.from)(to(test.to), make([]*http.Request, test.times)); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
