// Package examples runs each app of this directory as its README describes, from login to logout, and the code of
// the guides in each framework.
package examples

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/internal/doctest"
	"usercast/internal/hubtest"
	"usercast/internal/need"
	"usercast/internal/ssetest"
)

// environment contains the variables that an app needs in the tests, in addition to its README: libraries come from
// Debian packages, not from the internet.
var environment = map[string][]string{
	"node":   {"NODE_PATH=/usr/share/nodejs"},
	"python": {"PATH=/usr/bin:" + os.Getenv("PATH")}, // the Python that has the Debian libraries
}

// needLanguage skips a test unless the language of an example, or a framework of docs/authentication.md, is installed with
// its libraries.
func needLanguage(t *testing.T, name string) {
	t.Helper()
	php := func(packages, code string) { need.Command(t, packages, "php", "-r", code) }
	switch name {
	case "node", "express":
		need.Program(t, "node")
		need.File(t, "/usr/share/nodejs/redis", "apt-get install node-redis")
	case "python", "django":
		need.Command(t, "python3-redis python3-django", "/usr/bin/python3", "-c", "import redis, django")
	case "ruby":
		need.Command(t, "ruby ruby-redis ruby-webrick", "ruby", "-e", `require "redis"; require "webrick"`)
	case "rails":
		need.Command(t, "ruby-redis ruby-webrick ruby-devise ruby-railties ruby-activerecord ruby-sqlite3", "ruby", "-e",
			`require "redis"; require "webrick"; require "devise"; require "active_record"; require "sqlite3"`)
	case "php":
		php("php-cli php-redis", `exit((int) !extension_loaded("redis"));`)
	case "laravel":
		php("php-cli php-redis php-sqlite3", `exit((int) !(extension_loaded("redis") && extension_loaded("pdo_sqlite")));`)
		php("php-laravel-framework", `exit((int) !(@include "Illuminate/autoload.php"));`)
		php("php-predis", `exit((int) !file_exists("/usr/share/php/Predis/Autoloader.php"));`)
	}
	if name == "express" {
		need.File(t, "testdata/node_modules/ioredis", "npm --prefix examples/testdata ci")
	}
}

func TestExamples(t *testing.T) {
	runExamples(t, "*/README.md", 5, func(t *testing.T, s *doctest.Session) {
		tryApp(t, s)
		tryWithoutRedis(t, s)
	})
}

// runExamples runs the commands of each README that matches a pattern, and then try.
func runExamples(t *testing.T, pattern string, least int, try func(*testing.T, *doctest.Session)) {
	need.Program(t, "redis-server")
	pages, err := filepath.Glob(pattern)
	if err != nil || len(pages) < least {
		t.Fatalf("the examples are %q, %v", pages, err)
	}
	for _, file := range pages {
		dir := filepath.Dir(file)
		language := filepath.Base(dir)
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			needLanguage(t, language)
			here := dir
			if language == "laravel" { // writes into its own directory
				here = copyOf(t, dir)
			}
			s := doctest.NewSession(t, here, environment[language]...)
			for _, b := range doctest.Read(t, file).Blocks {
				if b.IsCommands() {
					s.Do(b)
				}
			}
			try(t, s)
		})
	}
}

// tryApp logs in, receives messages and logs out, as the page of the app does.
func tryApp(t *testing.T, s *doctest.Session) {
	ada, eve := newBrowser(t, s), newBrowser(t, s)
	if page := ada.ask("GET", s.AppURL()+"/", nil); page.StatusCode != 200 || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") {
		t.Errorf("the page: %s, %s", page.Status, page.Header.Get("Content-Type"))
	}
	if answer := ada.ask("GET", ada.hub+"/events", nil); answer.StatusCode != 401 {
		t.Errorf("a stream before logging in: %s, want 401", answer.Status)
	}
	if answer := ada.post("/messages", "to", "ada", "text", "x"); answer.StatusCode != 401 {
		t.Errorf("publishing before logging in: %s, want 401", answer.Status)
	}
	if answer := ada.post("/login", "name", "ada:x"); answer.StatusCode != 400 {
		t.Errorf("an invalid name: %s, want 400", answer.Status)
	}
	ada.post("/login", "name", "ada")
	eve.post("/login", "name", "eve")
	if answer := ada.ask("GET", s.AppURL()+"/usercast/session", nil); answer.Header.Get("X-User-ID") != "ada" {
		t.Fatalf("the session check: %s, X-User-ID: %q", answer.Status, answer.Header.Get("X-User-ID"))
	}
	hers, others := ada.open(), eve.open()

	if answer := eve.post("/messages", "to", "ada", "text", "grüß dich"); answer.StatusCode != 204 {
		t.Errorf("publishing: %s, want 204", answer.Status)
	}
	hers.want(`"from":`, `"eve"`, `dich"`)
	ada.post("/messages", "to", "eve", "text", "second")
	others.want(`"ada"`, `"second"`)

	ada.post("/logout")
	hers.want(`{"reason":"kicked"}`)
	hers.WantEnd(t)
	if answer := ada.ask("GET", ada.hub+"/events", nil); answer.StatusCode != 401 {
		t.Errorf("a stream after logging out: %s, want 401", answer.Status)
	}
	eve.post("/messages", "to", "eve", "text", "still here")
	others.want(`"still here"`)
}

// tryWithoutRedis checks that the app responds while Redis does not: publishing may be rejected, and a logout succeeds.
func tryWithoutRedis(t *testing.T, s *doctest.Session) {
	ada, eve := newBrowser(t, s), newBrowser(t, s)
	ada.post("/login", "name", "ada")
	eve.post("/login", "name", "eve")
	s.Redis.Freeze()
	ada.wantSoon("/messages", []int{204, 503}, "to", "eve", "text", "Redis does not answer")
	ada.wantSoon("/logout", []int{204})
	s.Redis.Thaw()
	s.Redis.Kill()
	eve.wantSoon("/messages", []int{204, 503}, "to", "ada", "text", "Redis is down")
	eve.wantSoon("/logout", []int{204})
	for _, b := range []*browser{ada, eve} {
		if answer := b.ask("GET", s.AppURL()+"/usercast/session", nil); answer.StatusCode != 401 {
			t.Errorf("the session check after a logout without Redis: %s, want 401", answer.Status)
		}
	}
	s.Redis.Restart()
	ada.post("/login", "name", "ada")
	for deadline := time.Now().Add(hubtest.Patience); ada.post("/messages", "to", "ada", "text", "again").StatusCode != 204; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the app does not publish after Redis has restarted")
		}
	}
}

// wantSoon posts a form, and checks that the app responds quickly and with one of the statuses.
func (b *browser) wantSoon(path string, statuses []int, fields ...string) {
	b.t.Helper()
	start := time.Now()
	answer := b.post(path, fields...)
	if took := time.Since(start); took > 8*time.Second {
		b.t.Errorf("POST %s while Redis is unavailable took %v", path, took)
	}
	if !slices.Contains(statuses, answer.StatusCode) {
		b.t.Errorf("POST %s while Redis is unavailable: %s, want %v", path, answer.Status, statuses)
	}
}

// A browser keeps cookies and sends the origin of its page.
type browser struct {
	t      *testing.T
	s      *doctest.Session
	hub    string // URL under which the page reaches the hub
	client *http.Client
}

func newBrowser(t *testing.T, s *doctest.Session) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{t, s, s.PublicURL(), &http.Client{Jar: jar, Transport: transport}}
}

func (b *browser) request(method, url string, form url.Values) *http.Response {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, url, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if strings.HasPrefix(url, b.hub+"/events") {
		r.Header.Set("Accept", "text/event-stream")
	}
	r.Header.Set("Origin", b.s.AppURL())
	answer, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer
}

// cookies returns the browser's cookies for the app, except the named ones.
func (b *browser) cookies(except ...string) []*http.Cookie {
	return slices.DeleteFunc(b.client.Jar.Cookies(b.appURL()), func(c *http.Cookie) bool { return slices.Contains(except, c.Name) })
}

// with returns another browser with these cookies for the app.
func (b *browser) with(cookies []*http.Cookie) *browser {
	b.t.Helper()
	other := newBrowser(b.t, b.s)
	other.hub = b.hub
	other.client.Jar.SetCookies(b.appURL(), cookies)
	return other
}

func (b *browser) appURL() *url.URL {
	b.t.Helper()
	u, err := url.Parse(b.s.AppURL())
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

// ask sends a request and discards the body of the response.
func (b *browser) ask(method, url string, form url.Values) *http.Response {
	b.t.Helper()
	answer := b.request(method, url, form)
	answer.Body.Close()
	return answer
}

// post sends a form to the app, with alternating names and values.
func (b *browser) post(path string, fields ...string) *http.Response {
	b.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return b.ask("POST", b.s.AppURL()+path, form)
}

// number returns the number in the body of a page of the app.
func (b *browser) number(path string) int {
	b.t.Helper()
	answer := b.request("GET", b.s.AppURL()+path, nil)
	defer answer.Body.Close()
	var n int
	if _, err := fmt.Fscan(answer.Body, &n); err != nil {
		b.t.Fatalf("GET %s: %s: %v", path, answer.Status, err)
	}
	return n
}

// A stream is a response as an EventSource reads it.
type stream struct {
	*ssetest.Stream
	t *testing.T
}

// open opens a stream and reads its opening block.
func (b *browser) open() stream {
	b.t.Helper()
	return b.openWith("")
}

// openWith is open with a query.
func (b *browser) openWith(query string) stream {
	b.t.Helper()
	answer := b.request("GET", b.hub+"/events"+query, nil)
	if answer.StatusCode != 200 || b.hub != b.s.AppURL() && answer.Header.Get("Access-Control-Allow-Origin") != b.s.AppURL() {
		b.t.Fatalf("a stream: %s, %v", answer.Status, answer.Header)
	}
	s := stream{ssetest.Of(answer), b.t}
	b.t.Cleanup(s.Close)
	if e, dispatched, err := s.Block(); err != nil || dispatched || s.LastID == "" {
		b.t.Fatalf("a stream begins with %+v, id %q: %v", e, s.LastID, err)
	}
	return s
}

// want checks that the data of the next event contains all parts.
func (s stream) want(parts ...string) {
	s.t.Helper()
	e, err := s.Next()
	if err != nil {
		s.t.Fatalf("waiting for an event with %q: %v", parts, err)
	}
	for _, part := range parts {
		if !strings.Contains(e.Data, part) {
			s.t.Errorf("received %q, want %s in it", e.Data, part)
		}
	}
}

// wantGap reads up to the next gap, which follows an outage of Redis.
func (s stream) wantGap() {
	s.t.Helper()
	for {
		e, err := s.Next()
		if err != nil {
			s.t.Fatalf("waiting for a gap: %v", err)
		}
		if e.Type == "gap" {
			return
		}
	}
}

// Users copy an app with its page, so each app has the same page.
func TestExamplesHaveTheSamePage(t *testing.T) {
	wantSame(t, "*/page.html", 5)
	wantSame(t, "team/*/page.html", 2)
}

// wantSame checks that the files that match a pattern are equal.
func wantSame(t *testing.T, pattern string, least int) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < least {
		t.Fatal(files, err)
	}
	for _, file := range files[1:] {
		if textOf(t, file) != textOf(t, files[0]) {
			t.Errorf("%s differs from %s", file, files[0])
		}
	}
}

// copyOf copies a directory into a temporary one, which the test can change.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// textOf returns the text of a file.
func textOf(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
