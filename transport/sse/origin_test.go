package sse_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"usercast/transport/sse"
)

const listed = "https://app.example"

// TestOrigins lists which pages may open a stream, by the headers that browsers send. The requested
// host is hub.example.
func TestOrigins(t *testing.T) {
	tests := []struct {
		name                            string
		origin, site, mode              string
		plain, allowing, allowNavigates bool // expected without a list; with app.example listed; with navigation allowed, too
	}{
		{"no browser", "", "", "", true, true, true},
		{"our page", "", "same-origin", "cors", true, true, true},
		{"our page, old browser", "http://hub.example", "", "", true, true, true},
		{"our page behind TLS", "https://hub.example", "same-origin", "cors", true, true, true},
		{"our page, port named", "https://hub.example:443", "", "", true, true, true},
		{"our page, in capitals", "http://HUB.example", "", "", true, true, true},
		{"another port", "http://hub.example:8080", "", "", false, false, false},
		{"the port of the other scheme", "http://hub.example:443", "", "", false, false, false},
		{"listed", listed, "cross-site", "cors", false, true, true},
		{"listed, old browser", listed, "", "", false, true, true},
		{"listed, sibling", listed, "same-site", "cors", false, true, true},
		{"listed, other scheme", "http://app.example", "", "", false, false, false},
		{"listed, other port", listed + ":8443", "", "", false, false, false},
		{"listed, longer", listed + ".evil.example", "", "", false, false, false},
		{"listed, as a prefix", "https://app.exampl", "", "", false, false, false},
		{"listed, capitals", "https://APP.example", "", "", false, false, false}, // browsers send it in lower case
		{"foreign", "https://evil.example", "cross-site", "cors", false, false, false},
		{"foreign, like ours", "https://hub.example.evil.example", "", "", false, false, false},
		{"foreign, ours as a user", "https://hub.example@evil.example", "", "", false, false, false},
		{"sandboxed", "null", "cross-site", "cors", false, false, false},
		{"not an origin", "hub.example", "", "", false, false, false},
		{"not an origin either", "%zz", "", "", false, false, false},
		{"foreign image", "", "cross-site", "no-cors", false, false, false},
		{"our image", "", "same-origin", "no-cors", false, false, false},
		{"foreign page without Origin", "", "cross-site", "cors", false, false, false},
		{"sibling without Origin", "", "same-site", "cors", false, false, false},
		{"sibling that says it is us", "http://hub.example", "same-site", "cors", false, false, false},
		{"address bar", "", "none", "navigate", false, false, true},
		{"link of our page", "", "same-origin", "navigate", false, false, true},
		{"link of another site", "", "cross-site", "navigate", false, false, false},
		{"frame in a sibling's page", "", "same-site", "navigate", false, false, false},
		{"our page before TLS", "http://hub.example", "cross-site", "cors", false, false, false},
		{"extension", "", "none", "cors", true, true, true},
	}
	sites := []*testServer{
		newTestServer(t, config{}),
		newTestServer(t, config{sse: sse.Config{Origins: sse.Origins{Allow: []string{"https://other.example", listed}}}}),
		newTestServer(t, config{sse: sse.Config{Origins: sse.Origins{Allow: []string{listed}, Navigate: true}}}),
	}
	for _, test := range tests {
		for i, allowed := range []bool{test.plain, test.allowing, test.allowNavigates} {
			var headers []string
			for name, value := range map[string]string{"Origin": test.origin, "Sec-Fetch-Site": test.site, "Sec-Fetch-Mode": test.mode} {
				if value != "" {
					headers = append(headers, name, value)
				}
			}
			w := openAndClose(sites[i], "user=42", headers...)
			if allowed {
				if w.Code != http.StatusOK {
					t.Errorf("%s, site %d: status %d, %s", test.name, i, w.Code, w.Body)
				}
			} else {
				wantError(t, w, http.StatusForbidden)
				if w.Code != http.StatusForbidden {
					t.Errorf("%s, server %d: accepted", test.name, i)
				}
			}
			wantCORS(t, w, i > 0, i > 0 && test.origin == listed)
		}
	}
}

// Only an origin in the form that browsers send can match the Host header or the list.
func TestOriginMustBeTheRequestedHostOrListed(t *testing.T) {
	sites := map[bool]*testServer{
		false: newTestServer(t, config{}),
		true:  newTestServer(t, config{sse: sse.Config{Origins: sse.Origins{Allow: []string{listed, "http://[2001:db8::1]:3000"}}}}),
	}
	tests := []struct {
		host    string
		origins []string
		own     bool // it is an origin of the requested host
		listed  bool
	}{
		{"hub.example", []string{"http://hub.example"}, true, false},
		{"hub.example", []string{"http://hub.example:80"}, true, false},
		{"hub.example", []string{"https://hub.example:443"}, true, false},
		{"hub.example:80", []string{"http://hub.example"}, true, false},
		{"hub.example:443", []string{"https://hub.example"}, true, false},
		{"hub.example:8080", []string{"http://hub.example:8080"}, true, false},
		{"HUB.example:8080", []string{"https://hub.EXAMPLE:8080"}, true, false},
		{"127.0.0.1:8080", []string{"http://127.0.0.1:8080"}, true, false},
		{"[::1]:8080", []string{"http://[::1]:8080"}, true, false},
		{"[::1]", []string{"http://[::1]"}, true, false},
		{"[::1]", []string{"https://[::1]:443"}, true, false},
		{"[2001:db8::80]", []string{"http://[2001:db8::80]"}, true, false},
		{"hub.example.", []string{"http://hub.example."}, true, false}, // differs from hub.example

		{"hub.example", []string{"http://hub.example:443"}, false, false},
		{"hub.example", []string{"https://hub.example:80"}, false, false},
		{"hub.example:8080", []string{"http://hub.example"}, false, false},
		{"hub.example", []string{"http://hub.example:8080"}, false, false},
		{"hub.example", []string{"http://hub.example."}, false, false},
		{"hub.example", []string{"http://hub.example/"}, false, false},
		{"hub.example", []string{"http://hub.example/events"}, false, false},
		{"hub.example", []string{"http://hub.example?"}, false, false},
		{"hub.example", []string{"http://hub.example#"}, false, false},
		{"hub.example", []string{"http://hub.example#@evil.example"}, false, false},
		{"hub.example", []string{"http://user@hub.example"}, false, false},
		{"hub.example", []string{"http://evil.example@hub.example"}, false, false},
		{"hub.example", []string{"http://hub.example@evil.example"}, false, false},
		{"hub.example", []string{"http://hub.example.evil.example"}, false, false},
		{"hub.example", []string{"http://evilhub.example"}, false, false},
		{"hub.example", []string{"http://evil-hub.example"}, false, false},
		{"hub.example", []string{"http://evil.hub.example"}, false, false},
		{"hub.example", []string{"http://example"}, false, false},
		{"hub.example", []string{"http://hub%2eexample"}, false, false},
		{"hub.example", []string{"http://hub.example:"}, false, false},
		{"hub.example:", []string{"http://hub.example:"}, false, false},
		{"hub.example", []string{"http://hub.example:080"}, false, false},
		{"hub.example", []string{"HTTP://hub.example"}, false, false},
		{"hub.example", []string{"http:hub.example"}, false, false},
		{"hub.example", []string{"http:/hub.example"}, false, false},
		{"hub.example", []string{"http:///hub.example"}, false, false},
		{"hub.example", []string{"//hub.example"}, false, false},
		{"hub.example", []string{"hub.example"}, false, false},
		{"hub.example", []string{"ftp://hub.example"}, false, false},
		{"hub.example", []string{"file://hub.example"}, false, false},
		{"hub.example", []string{"ws://hub.example"}, false, false},
		{"hub.example", []string{"moz-extension://hub.example"}, false, false},
		{"hub.example", []string{"javascript://hub.example"}, false, false},
		{"null", []string{"null"}, false, false},
		{"", []string{"null"}, false, false},
		{"", []string{"http://"}, false, false},
		{"", []string{"http://:80"}, false, false},
		{":80", []string{"http://:80"}, false, false},
		{"[::1]", []string{"http://[::1"}, false, false},
		{"hub.example", []string{"http://hub.example http://hub.example"}, false, false},
		{"hub.example", []string{"http://hub.example", "http://hub.example"}, false, false},
		{"hub.example", []string{"http://hub.example", "https://evil.example"}, false, false},
		{"hub.example", []string{"https://evil.example", "http://hub.example"}, false, false},

		{"hub.example", []string{listed}, false, true},
		{"hub.example", []string{"http://[2001:db8::1]:3000"}, false, true},
		{"hub.example", []string{listed, listed}, false, false},
		{"hub.example", []string{listed, "https://evil.example"}, false, false},
		{"hub.example", []string{"https://evil.example", listed}, false, false},
		{"hub.example", []string{listed + ":443"}, false, false},
		{"hub.example", []string{listed + ":444"}, false, false},
		{"hub.example", []string{listed + "/"}, false, false},
		{"hub.example", []string{listed + "."}, false, false},
		{"hub.example", []string{listed + ".evil"}, false, false},
		{"hub.example", []string{listed + "@evil"}, false, false},
		{"hub.example", []string{listed + " "}, false, false},
		{"hub.example", []string{"https://evilapp.example"}, false, false},
		{"hub.example", []string{"https://evil.app.example"}, false, false},
		{"hub.example", []string{"https://evil@app.example"}, false, false},
		{"hub.example", []string{"https://App.example"}, false, false},
		{"hub.example", []string{"http://app.example"}, false, false},
		{"hub.example", []string{"http://[2001:db8:0::1]:3000"}, false, false},
		{"hub.example", []string{"http://[2001:db8::1]"}, false, false},
	}
	for _, test := range tests {
		for listing, s := range sites {
			for _, method := range []string{http.MethodGet, http.MethodOptions} {
				r := httptest.NewRequest(method, "/events?user=42", nil)
				r.Host, r.Header["Origin"] = test.host, test.origins
				r.Header.Set("Accept", "text/event-stream")
				w := answer(s, r)
				want := http.StatusForbidden
				switch listed := listing && test.listed; {
				case method == http.MethodGet && (test.own || listed):
					want = http.StatusOK
				case listed:
					want = http.StatusNoContent
				case test.own:
					want = http.StatusMethodNotAllowed // a same-origin page does not need a preflight
				}
				if w.Code != want {
					t.Errorf("%s to %q from %q, with a list: %t: %d, want %d", method, test.host, test.origins, listing, w.Code, want)
				}
				if got := w.Header().Get("Access-Control-Allow-Origin"); (got != "") != (listing && test.listed) {
					t.Errorf("%s to %q from %q, with a list: %t: Access-Control-Allow-Origin: %q", method, test.host, test.origins, listing, got)
				}
			}
		}
	}
}

// With DNS rebinding, the name of a page resolves to this machine, so that the page has the same origin.
func TestLoopbackHostPreventsDNSRebinding(t *testing.T) {
	s := newTestServer(t, config{sse: sse.Config{Origins: sse.Origins{LoopbackHost: true, Navigate: true, Allow: []string{listed}}}})
	ask := func(host string, headers ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/events?user=42", nil)
		r.Host = host
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		return answer(s, r)
	}
	for _, host := range []string{"127.0.0.1:8080", "localhost:8080", "app.localhost", "[::1]:8080"} {
		for _, w := range []*httptest.ResponseRecorder{ask(host), ask(host, "Origin", "http://"+host), ask(host, "Origin", listed)} {
			if w.Code != http.StatusOK {
				t.Errorf("%s: %d %s", host, w.Code, w.Body)
			}
		}
	}
	if w := ask(""); w.Code != http.StatusOK { // HTTP/1.0: not a browser
		t.Errorf("without a Host: %d %s", w.Code, w.Body)
	}
	foreignHosts := []string{"evil.example:8080", "evil.example", "127.0.0.1.evil.example:8080", "10.0.0.1:8080"}
	for _, host := range foreignHosts {
		for _, w := range []*httptest.ResponseRecorder{
			ask(host), ask(host, "Origin", "http://"+host), ask(host, "Origin", "http://"+host, "Sec-Fetch-Site", "same-origin"),
			ask(host, "Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"), ask(host, "Origin", listed),
		} {
			wantError(t, w, http.StatusForbidden)
		}
	}
	if n := s.handler.Stats().Rejects["origin"]; n != uint64(5*len(foreignHosts)) {
		t.Errorf("%d rejects are counted as origin", n)
	}
}

// wantCORS checks the headers that a page needs to read the response.
func wantCORS(t *testing.T, w *httptest.ResponseRecorder, vary, allowed bool) {
	t.Helper()
	if got := slices.Contains(w.Header().Values("Vary"), "Origin"); got != vary {
		t.Errorf("Vary: %q", w.Header().Values("Vary"))
	}
	origin, credentials := "", ""
	if allowed {
		origin, credentials = listed, "true"
	}
	if got := w.Header().Get("Access-Control-Allow-Origin"); got != origin {
		t.Errorf("Access-Control-Allow-Origin: %q, want %q", got, origin)
	}
	if got := w.Header().Get("Access-Control-Allow-Credentials"); got != credentials {
		t.Errorf("Access-Control-Allow-Credentials: %q, want %q", got, credentials)
	}
}

// Without these headers, a page could not distinguish a rejection from a network error.
func TestErrorsCarryCORSHeaders(t *testing.T) {
	s := newTestServer(t, config{sse: sse.Config{Origins: sse.Origins{Allow: []string{listed}}}})
	ask := func(method, query, origin string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/events?"+query, nil)
		r.Header.Set("Origin", origin)
		return answer(s, r)
	}
	for _, w := range []*httptest.ResponseRecorder{
		ask("GET", "", listed), ask("GET", "user=*", listed), ask("GET", "event=x", listed), ask("POST", "", listed),
	} {
		if w.Code < 400 {
			t.Errorf("status %d", w.Code)
		}
		wantCORS(t, w, true, true)
	}
	wantCORS(t, ask("GET", "user=42", "https://evil.example"), true, false)

	s.hub.Refuse()
	w := ask("GET", "user=42", listed)
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", w.Code)
	}
	wantCORS(t, w, true, true)
	w = openAndClose(s, "user=42", "Origin", listed)
	if w.Code != http.StatusOK {
		t.Errorf("status %d", w.Code)
	}
	wantCORS(t, w, true, true)
}

func TestPreflight(t *testing.T) {
	s := newTestServer(t, config{sse: sse.Config{Origins: sse.Origins{Allow: []string{listed}}}})
	ask := func(origin string, requested ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodOptions, "/events", nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", "GET")
		for _, names := range requested {
			r.Header.Add("Access-Control-Request-Headers", names)
		}
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Mode", "cors")
		return answer(s, r)
	}
	w := ask(listed, "last-event-id")
	if w.Code != http.StatusNoContent || w.Body.Len() > 0 {
		t.Errorf("status %d, body %q", w.Code, w.Body)
	}
	wantCORS(t, w, true, true)
	if got := w.Header().Get("Access-Control-Allow-Methods"); got != "GET" {
		t.Errorf("Access-Control-Allow-Methods: %q", got)
	}
	if !slices.Contains(w.Header().Values("Vary"), "Access-Control-Request-Headers") {
		t.Errorf("Vary: %q", w.Header().Values("Vary"))
	}
	if n := s.handler.Stats().Rejects["bad-request"]; n != 0 {
		t.Errorf("%d rejects", n)
	}
	w = ask("https://evil.example", "traceparent")
	wantError(t, w, http.StatusForbidden)
	wantCORS(t, w, true, false)
	if got := w.Header().Get("Access-Control-Allow-Headers"); got != "" {
		t.Errorf("another origin is allowed to send %q", got)
	}

	// The hub ignores headers that it does not know, so every header may be sent. Only names of headers are written back.
	const most = 2 << 10
	for _, test := range []struct {
		requested []string
		want      string
	}{
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"authorization,cache-control,last-event-id"}, "authorization, cache-control, last-event-id"},
		{[]string{"baggage,sentry-trace,traceparent,tracestate"}, "baggage, sentry-trace, traceparent, tracestate"},
		{[]string{"X-CSRF-Token , \tx-datadog-trace-id"}, "X-CSRF-Token, x-datadog-trace-id"},
		{[]string{"a", "b,c"}, "a, b, c"},
		{[]string{"a,,b c,ü,d:e,(f),*,g"}, "a, *, g"},
		{[]string{"a,b\r\nSet-Cookie: c=d,e"}, "a, e"},
		{[]string{"a," + strings.Repeat("x", most) + ",b"}, "a"},
		{[]string{strings.Repeat("traceparent,", most)}, strings.TrimSuffix(strings.Repeat("traceparent, ", most/len("traceparent, ")), ", ")},
	} {
		w := ask(listed, test.requested...)
		if got := w.Header().Get("Access-Control-Allow-Headers"); w.Code != http.StatusNoContent || got != test.want {
			t.Errorf("for %.60q: %d, Access-Control-Allow-Headers %.60q, want %.60q", test.requested, w.Code, got, test.want)
		}
	}
}

// Apps in a web view have schemes of their own.
func TestOriginsOfWebViewsCanBeListed(t *testing.T) {
	origins := []string{"capacitor://localhost", "tauri://localhost", "chrome-extension://abcdef", "file://"}
	s := newTestServer(t, config{sse: sse.Config{Origins: sse.Origins{Allow: origins}}})
	for _, origin := range origins {
		w := openAndClose(s, "user=42", "Origin", origin, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors")
		if got := w.Header().Get("Access-Control-Allow-Origin"); w.Code != http.StatusOK || got != origin {
			t.Errorf("%s: %d, Access-Control-Allow-Origin %q", origin, w.Code, got)
		}
	}
	for _, origin := range []string{"capacitor://evil", "capacitor://localhost:80", "Capacitor://localhost", "file:///", "null"} {
		wantError(t, openAndClose(s, "user=42", "Origin", origin), http.StatusForbidden)
	}
}
