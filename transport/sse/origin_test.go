package sse_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"usercast/transport/sse"
)

const listed = "https://app.example"

// The table of who may open a stream, by what the browser says of the page. The
// host that is asked is hub.example.
func TestOrigins(t *testing.T) {
	tests := []struct {
		name                            string
		origin, site, mode              string
		plain, allowing, allowNavigates bool // nothing listed; app.example listed; and navigation allowed
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
		{"extension", "", "none", "cors", true, true, true},
	}
	sites := []*site{
		newSite(t, config{}),
		newSite(t, config{sse: sse.Config{Origins: sse.Origins{Allow: []string{"https://other.example", listed}}}}),
		newSite(t, config{sse: sse.Config{Origins: sse.Origins{Allow: []string{listed}, Navigate: true}}}),
	}
	for _, test := range tests {
		for i, allowed := range []bool{test.plain, test.allowing, test.allowNavigates} {
			var headers []string
			for name, value := range map[string]string{"Origin": test.origin, "Sec-Fetch-Site": test.site, "Sec-Fetch-Mode": test.mode} {
				if value != "" {
					headers = append(headers, name, value)
				}
			}
			w := gone(sites[i], "user=42", headers...)
			if allowed {
				if w.Code != http.StatusOK {
					t.Errorf("%s, site %d: status %d, %s", test.name, i, w.Code, w.Body)
				}
			} else {
				wantError(t, w, http.StatusForbidden)
				if w.Code != http.StatusForbidden {
					t.Errorf("%s, site %d: let in", test.name, i)
				}
			}
			wantCORS(t, w, i > 0, i > 0 && test.origin == listed)
		}
	}
}

// wantCORS checks the headers without which the page could not read the answer.
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

// Without these headers a page could not tell a refusal from a network error.
func TestErrorsCarryCORSHeaders(t *testing.T) {
	s := newSite(t, config{sse: sse.Config{Origins: sse.Origins{Allow: []string{listed}}}})
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
	w = gone(s, "user=42", "Origin", listed)
	if w.Code != http.StatusOK {
		t.Errorf("status %d", w.Code)
	}
	wantCORS(t, w, true, true)
}

func TestPreflight(t *testing.T) {
	s := newSite(t, config{sse: sse.Config{Origins: sse.Origins{Allow: []string{listed}}}})
	ask := func(origin string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodOptions, "/events", nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", "GET")
		r.Header.Set("Access-Control-Request-Headers", "last-event-id")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Mode", "cors")
		return answer(s, r)
	}
	w := ask(listed)
	if w.Code != http.StatusNoContent || w.Body.Len() > 0 {
		t.Errorf("status %d, body %q", w.Code, w.Body)
	}
	wantCORS(t, w, true, true)
	if got := w.Header().Get("Access-Control-Allow-Methods"); got != "GET" {
		t.Errorf("Access-Control-Allow-Methods: %q", got)
	}
	if got := w.Header().Get("Access-Control-Allow-Headers"); got != "authorization, last-event-id, cache-control" {
		t.Errorf("Access-Control-Allow-Headers: %q", got)
	}
	if n := s.handler.Stats().Rejects["bad-request"]; n != 0 {
		t.Errorf("%d rejects", n)
	}
	w = ask("https://evil.example")
	wantError(t, w, http.StatusForbidden)
	wantCORS(t, w, true, false)
}
