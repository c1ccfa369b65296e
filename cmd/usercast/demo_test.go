package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/labstack/echo/v4"

	"usercast/internal/browsertest"
)

// demoServer is the page on a loopback listener. It records the published messages.
type demoServer struct {
	*httptest.Server
	published []string // channel, payload, channel, payload, ...
	err       error    // returned by publishing
}

func startDemo(t *testing.T, page demoPage) *demoServer {
	t.Helper()
	s := new(demoServer)
	e := echo.New()
	mountDemo(e, page, func(ctx context.Context, channel, payload string) (int64, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("publishing has no deadline")
		}
		s.published = append(s.published, channel, payload)
		return 3, s.err
	})
	s.Server = httptest.NewServer(e)
	t.Cleanup(s.Close)
	return s
}

var demoDefaults = demoPage{Path: "/events", Prefix: "user-", Separator: ":", RedisPort: 6380, User: "42"}

func (s *demoServer) get(t *testing.T, path string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Get(s.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// post sends body to /publish like the page. If edit is not nil, it changes the request.
func (s *demoServer) post(t *testing.T, body string, edit func(*http.Request)) (status int, response map[string]any) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, s.URL+"/publish", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", s.URL)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if edit != nil {
		edit(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&response); err != nil {
		t.Fatalf("the response is not JSON: %v", err)
	}
	return resp.StatusCode, response
}

func TestDemoPageShowsItsData(t *testing.T) {
	resp, body := startDemo(t, demoDefaults).get(t, "/")
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("status %d, type %q", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	text := html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, ""))
	for _, want := range []string{
		`redis-cli -p 6380 PUBLISH user-42:activity '{"kind":"comment","id":7}'`,
		"PSUBSCRIBE user-*",
		`new EventSource("/events")`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not contain %q", want)
		}
	}
	for _, want := range []string{`data-path="/events"`, `data-prefix="user-"`, `id="a-user" name="user" value="42"`, `id="b-user" name="user" value="7"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not contain %q", want)
		}
	}
}

func TestDemoPageShowsTwoDifferentUsers(t *testing.T) {
	page := demoDefaults
	page.User = "7"
	_, body := startDemo(t, page).get(t, "/")
	if !strings.Contains(body, `id="a-user" name="user" value="7"`) || !strings.Contains(body, `id="b-user" name="user" value="42"`) {
		t.Error("both panels show the same user")
	}
}

func TestDemoPageEscapesItsValues(t *testing.T) {
	const evil = `"><script>alert(1)</script>'`
	_, body := startDemo(t, demoPage{Path: "/" + evil, Prefix: evil, Separator: evil, RedisPort: 1, User: evil}).get(t, "/")
	if strings.Contains(body, "<script>alert") || strings.Contains(body, evil) {
		t.Error("a value is not escaped")
	}
	if n := strings.Count(body, "<script"); n != 1 {
		t.Errorf("%d scripts, want 1", n)
	}
}

func TestDemoPageLoadsOnlyOwnResources(t *testing.T) {
	s := startDemo(t, demoDefaults)
	resp, body := s.get(t, "/")
	policy := resp.Header.Get("Content-Security-Policy")
	for _, want := range []string{
		"default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'",
		"base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
	} {
		if !strings.Contains(policy, want) {
			t.Errorf("the policy does not contain %s: %s", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is unsafe: %s", policy)
	}
	if resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Referrer-Policy") == "" {
		t.Errorf("headers: %v", resp.Header)
	}
	// Only a browser would detect a violation of the policy.
	if inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|javascript:|//[a-z]`).FindString(body); inline != "" {
		t.Errorf("the page contains %q, which its policy forbids", inline)
	}
}

func TestDemoServesAllResourcesOfThePage(t *testing.T) {
	s := startDemo(t, demoDefaults)
	_, body := s.get(t, "/")
	requested := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(body, -1) {
		requested[m[1]] = true
	}
	imports := regexp.MustCompile(`from "\./([^"]+)"`)
	types := map[string]string{".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
	for done := map[string]bool{}; len(done) < len(requested); {
		for name := range requested {
			if done[name] {
				continue
			}
			done[name] = true
			resp, text := s.get(t, name)
			if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), types[path.Ext(name)]) {
				t.Errorf("%s: status %d, type %q", name, resp.StatusCode, resp.Header.Get("Content-Type"))
			}
			if resp.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s has no nosniff header", name)
			}
			for _, m := range imports.FindAllStringSubmatch(text, -1) {
				requested["/demo/"+m[1]] = true
			}
		}
	}
	files, err := demoFiles.ReadDir("demo")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != "index.html" && !requested["/demo/"+f.Name()] {
			t.Errorf("%s is embedded but not used", f.Name())
		}
	}
	if resp, _ := s.get(t, "/demo/index.html"); resp.StatusCode != http.StatusNotFound {
		t.Error("the template is served unexecuted")
	}
}

func TestDemoPublishes(t *testing.T) {
	for _, tc := range []struct{ name, body, channel, payload string }{
		{"topic", `{"user":"42","topic":"activity","payload":"{\"id\":7}"}`, "user-42:activity", `{"id":7}`},
		{"no topic", `{"user":"42","topic":"","payload":"x"}`, "user-42", "x"},
		{"topic with colons", `{"user":"42","topic":"a:b","payload":"x"}`, "user-42:a:b", "x"},
		{"all users", `{"user":"*","topic":"news","payload":"x"}`, "user-*:news", "x"},
		{"empty payload", `{"user":"42"}`, "user-42", ""},
		{"1 MiB", `{"user":"42","payload":"` + strings.Repeat("x", 1<<20) + `"}`, "user-42", strings.Repeat("x", 1<<20)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startDemo(t, demoDefaults)
			status, response := s.post(t, tc.body, nil)
			if status != http.StatusOK || response["receivers"] != 3.0 {
				t.Fatalf("status %d, response %v", status, response)
			}
			if len(s.published) != 2 || s.published[0] != tc.channel || s.published[1] != tc.payload {
				t.Errorf("published %.80q", s.published)
			}
		})
	}
}

func TestDemoPublishesForCurl(t *testing.T) {
	// curl sends neither Origin nor Fetch metadata.
	status, response := startDemo(t, demoDefaults).post(t, `{"user":"42"}`, func(r *http.Request) {
		r.Header.Del("Origin")
		r.Header.Del("Sec-Fetch-Site")
	})
	if status != http.StatusOK {
		t.Errorf("status %d: %v", status, response)
	}
}

func TestDemoRejectsInvalidRequests(t *testing.T) {
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	host := func(host string) func(*http.Request) {
		return func(r *http.Request) {
			r.Host = host
			r.Header.Set("Origin", "http://"+host) // for a browser, this is the same origin
		}
	}
	const fine = `{"user":"42","topic":"activity","payload":"x"}`
	for _, tc := range []struct {
		name, body string
		edit       func(*http.Request)
		status     int
	}{
		{"another site", fine, header("Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
		{"another port of this host", fine, header("Sec-Fetch-Site", "same-site"), http.StatusForbidden},
		{"another origin, old browser", fine, func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "http://evil.example")
		}, http.StatusForbidden},
		{"rebound name", fine, host("evil.example"), http.StatusForbidden},
		{"rebound name with port", fine, host("evil.example:8080"), http.StatusForbidden},
		{"name that looks local", fine, host("localhost.evil.example"), http.StatusForbidden},
		{"address that looks local", fine, host("127.0.0.1.evil.example"), http.StatusForbidden},
		{"a form's type", fine, header("Content-Type", "application/x-www-form-urlencoded"), http.StatusUnsupportedMediaType},
		{"a form's other type", fine, header("Content-Type", "text/plain"), http.StatusUnsupportedMediaType},
		{"no type", fine, header("Content-Type", ""), http.StatusUnsupportedMediaType},
		{"empty user", `{"user":"","payload":"x"}`, nil, http.StatusBadRequest},
		{"no user", `{"payload":"x"}`, nil, http.StatusBadRequest},
		{"user with colon", `{"user":"42:7","payload":"x"}`, nil, http.StatusBadRequest},
		{"not JSON", `user=42`, nil, http.StatusBadRequest},
		{"not a string", `{"user":42}`, nil, http.StatusBadRequest},
		{"nothing", ``, nil, http.StatusBadRequest},
		{"two values", fine + fine, nil, http.StatusBadRequest},
		{"too large", `{"user":"42","payload":"` + strings.Repeat("x", demoMaxBody) + `"}`, nil, http.StatusRequestEntityTooLarge},
		{"too large behind the value", fine + strings.Repeat(" ", demoMaxBody), nil, http.StatusRequestEntityTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startDemo(t, demoDefaults)
			status, response := s.post(t, tc.body, tc.edit)
			if sentence, _ := response["error"].(string); status != tc.status || sentence == "" || len(response) != 1 {
				t.Errorf("status %d, want %d; response %v", status, tc.status, response)
			}
			if s.published != nil {
				t.Errorf("published %.80q", s.published)
			}
		})
	}
}

func TestDemoReportsRedisFailures(t *testing.T) {
	s := startDemo(t, demoDefaults)
	s.err = errors.New("connection refused")
	status, response := s.post(t, `{"user":"42","payload":"secret"}`, nil)
	if sentence, _ := response["error"].(string); status != http.StatusBadGateway || !strings.Contains(sentence, "connection refused") || strings.Contains(sentence, "secret") {
		t.Errorf("status %d, response %v", status, response)
	}
}

// The form shows the result of each attempt, and never the result of a previous one.
func TestDemoFormShowsResults(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	s := startDemo(t, demoDefaults)
	p := browsertest.Start(t).Open(t, s.URL+"/")
	p.Do(chromedp.EmulateViewport(390, 844))
	p.Until(`document.querySelector("#publish .primary") && document.readyState == "complete"`)
	if wide := p.Text(`[...document.querySelectorAll("pre")].filter(e => e.scrollWidth > e.clientWidth).map(e => e.innerText).join()`); wide != "" {
		t.Errorf("code is wider than its box: %s", wide)
	}
	for _, tc := range []struct{ user, button, want string }{
		{"42", ".primary", "3 hubs received the message."},
		{"", ".primary", "Enter a user id, or * for all users."},
		{"42", ".primary", "3 hubs received the message."},
		{"a:b", ".primary", "A user id must not contain :. Enter the topic in its own field."},
		{"42", "#burst", "3 hubs received each of them."},
		{"", "#burst", "Enter a user id, or * for all users."},
	} {
		p.Run(fmt.Sprintf(`to.value = %q; to.dispatchEvent(new Event("input", { bubbles: true })); document.querySelector("#publish %s").click()`, tc.user, tc.button))
		p.Until(fmt.Sprintf(`document.getElementById("result").innerText.endsWith(%q)`, tc.want))
		if got := p.Text(`String(to.ariaInvalid == "true")`); got != fmt.Sprint(tc.user != "42") {
			t.Errorf("user %q: marked as invalid: %s", tc.user, got)
		}
	}
	// Correcting the user id removes the message.
	p.Run(`to.value = "7"; to.dispatchEvent(new Event("input", { bubbles: true }))`)
	p.Until(`document.getElementById("result").innerText == "" && !to.ariaInvalid`)
	if n := len(s.published) / 2; n != 102 {
		t.Errorf("published %d messages, want 102", n)
	}
}

func TestDemoAcceptsLoopbackNames(t *testing.T) {
	for _, host := range []string{"localhost:8080", "LOCALHOST", "app.localhost:8080", "localhost.:8080", "127.0.0.1", "127.1.2.3:8080", "[::1]", "[::1]:8080"} {
		s := startDemo(t, demoDefaults)
		status, response := s.post(t, `{"user":"42"}`, func(r *http.Request) { r.Host = host })
		if status != http.StatusOK {
			t.Errorf("Host %s: status %d, %v", host, status, response)
		}
	}
}

// On a listener with another address, the page accepts any host name, because its valid names are unknown.
func TestDemoAcceptsAnyNameOnOtherAddresses(t *testing.T) {
	for _, tc := range []struct {
		local  string
		status int
	}{{"192.0.2.1", http.StatusOK}, {"127.0.0.1", http.StatusForbidden}, {"::1", http.StatusForbidden}} {
		e := echo.New()
		mountDemo(e, demoDefaults, func(context.Context, string, string) (int64, error) { return 1, nil })
		req := httptest.NewRequest(http.MethodPost, "http://hub.example/publish", strings.NewReader(`{"user":"42"}`))
		req.Header.Set("Content-Type", "application/json")
		addr := &net.TCPAddr{IP: net.ParseIP(tc.local), Port: 8080}
		rec := httptest.NewRecorder()
		e.ServeHTTP(rec, req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, addr)))
		if rec.Code != tc.status {
			t.Errorf("listener %s: status %d, want %d", tc.local, rec.Code, tc.status)
		}
	}
}

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{
		"user-42:activity": "user-42:activity",
		"":                 "''",
		"a b":              "'a b'",
		"user-*":           "'user-*'",
		`{"a":"$(x)"}`:     `'{"a":"$(x)"}'`,
		"it's":             `'it'\''s'`,
		"ü":                "'ü'",
	} {
		if got := shellWord(in); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", in, got, want)
		}
	}
}
