package sse_test

import (
	"strings"
	"testing"

	"usercast/transport/sse"
)

func TestValidateOriginNamesTheCorrectOrigin(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{
		"https://app.example", "http://app.example", "https://app.example:8443", "http://app.example:443", "https://app.example:80",
		"http://localhost:3000", "http://127.0.0.1:3000", "http://[::1]:3000", "https://xn--bcher-kva.example", "https://app_1.example",
		"https://app.example.", // a different host

		// Apps in a web view, and browser extensions.
		"capacitor://localhost", "ionic://localhost", "tauri://localhost", "http://tauri.localhost", "https://tauri.localhost",
		"app://localhost", "app://obsidian.md", "app://-", "app://.", "wails://wails.localhost:34115", "http://localhost", "https://localhost",
		"chrome-extension://abcdefghijklmnopabcdefghijklmnop", "moz-extension://0a1b2c3d-0000-4000-8000-00000000abcd",
		"safari-web-extension://0A1B2C3D-0000-4000-8000-00000000ABCD", // WebKit keeps the case
		"vscode-webview://1a2b3c4d5e6f", "com.example.app+1://host", "app://[::1]:80", "app://", "file://",
	} {
		if err := sse.ValidateOrigin(origin); err != nil {
			t.Errorf("%s %v", origin, err)
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
		"wss://app.example:443/events":      "write https://app.example",
		"ws://localhost:3000":               "write http://localhost:3000",
		"Capacitor://localhost":             "write capacitor://localhost",
		"capacitor://localhost/":            "write capacitor://localhost",
		"app://obsidian.md/index.html":      "write app://obsidian.md",
		"app://localhost:":                  "write app://localhost",
		"chrome-extension://abcdef/a.html":  "write chrome-extension://abcdef",
		"app://[0:0:0:0:0:0:0:1]:3000":      "write app://[::1]:3000",
		"file:///":                          "write file://",
		"file:///android_asset/www/a.html":  "write file://",
		"file://localhost/":                 "write file://",
		"*":                                 "list each origin",
		"https://*.app.example":             "list each origin",
		"capacitor://*":                     "list each origin",
		"chrome-extension://*":              "list each origin",
		"null":                              "list each origin",
		"https://bücher.example":            "xn--",
		" https://app.example":              "without spaces",
		"https://a.example https://b.other": "without spaces",
		"":                                  "is not an origin",
		"https://":                          "is not an origin",
		"https:///app":                      "is not an origin",
		"://app":                            "is not an origin",
		"1app://localhost":                  "is not an origin",
		"my_app://localhost":                "is not an origin",
		"https://app.example:x":             "is not an origin",
		"app://localhost:x":                 "is not an origin",
		"https://[::1":                      "is not an origin",
		"https://a%2fb":                     "is not an origin",
		"app://a%2fb":                       "is not an origin",
		"app://a;b":                         "is not an origin",
		"blob:https://app.example/1-2":      "is not an origin",
		"about:blank":                       "is not an origin",
	} {
		err := sse.ValidateOrigin(origin)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q %v, want %q", origin, err, want)
			continue
		}
		// The proposed origin is valid.
		if _, proposed, ok := strings.Cut(err.Error(), "; write "); ok && strings.Contains(proposed, "://") {
			if err := sse.ValidateOrigin(proposed); err != nil {
				t.Errorf("%q: the proposed origin %s %v", origin, proposed, err)
			}
		}
	}
}
