package app

import (
	"strings"
	"testing"
)

func TestOriginProblemNamesTheCorrectOrigin(t *testing.T) {
	for _, origin := range []string{
		"https://app.example", "http://app.example", "https://app.example:8443", "http://app.example:443", "https://app.example:80",
		"http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]:3000", "https://xn--bcher-kva.example", "https://app_1.example",
		"https://app.example.", // a different host
	} {
		if problem := originProblem(origin); problem != "" {
			t.Errorf("%s %s", origin, problem)
		}
	}
	for origin, want := range map[string]string{
		"https://app.example:443":           "write https://app.example",
		"http://app.example:80":             "write http://app.example",
		"https://app.example:08443":         "write https://app.example:8443",
		"https://app.example:":              "write https://app.example",
		"https://App.Example":               "write https://app.example",
		"HTTPS://app.example":               "write https://app.example",
		"https://app.example/":              "write https://app.example",
		"https://app.example/path?a#b":      "write https://app.example",
		"https://user:secret@app.example":   "write https://app.example",
		"app.example":                       "write https://app.example",
		"app.example:8443":                  "write https://app.example:8443",
		"http://[0:0:0:0:0:0:0:1]:3000":     "write http://[::1]:3000",
		"*":                                 "list each origin",
		"https://*.app.example":             "list each origin",
		"null":                              "list each origin",
		"https://bücher.example":            "xn--",
		" https://app.example":              "without spaces",
		"https://a.example https://b.other": "without spaces",
		"":                                  "is not an origin",
		"https://":                          "is not an origin",
		"https:///app":                      "is not an origin",
		"ftp://app.example":                 "is not an origin",
		"file:///app":                       "is not an origin",
		"chrome-extension://abcdef":         "is not an origin",
		"https://app.example:x":             "is not an origin",
		"https://[::1":                      "is not an origin",
		"https://a%2fb":                     "is not an origin",
	} {
		problem := originProblem(origin)
		if !strings.Contains(problem, want) || strings.Contains(problem, "\n") {
			t.Errorf("%q %q, want %q", origin, problem, want)
		}
		// The proposed origin is valid.
		if _, proposed, ok := strings.Cut(problem, "; write http"); ok {
			if problem := originProblem("http" + proposed); problem != "" {
				t.Errorf("%q: the proposed origin %s", origin, problem)
			}
		}
	}
}
