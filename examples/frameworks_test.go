package examples

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"usercast/auth"
	"usercast/internal/doctest"
	"usercast/internal/eventstream"
	"usercast/internal/need"
	"usercast/internal/ssetest"
)

// hubBlock starts the hub as the guides do, without a cache of session checks.
var hubBlock = doctest.Block{Mark: "run: hub", Text: "usercast serve --auth forward --forward-url http://127.0.0.1:3000/usercast/session" +
	" --allow-origin http://127.0.0.1:3000 --auth-cache 0s --log-level debug"}

// The pages whose code the tests run.
const (
	authPage    = "../docs/authentication.md"
	logoutPage  = "../docs/logout.md"
	publishPage = "../docs/publishing.md"
	renderPage  = "../docs/rendered-pages.md"
)

// TestFrameworks runs what these pages show for each framework in the framework itself: login, message, session checks,
// logout, and what the app does while Redis is unavailable.
func TestFrameworks(t *testing.T) {
	need.Program(t, "redis-server")
	for name, try := range map[string]func(*testing.T){
		"django": tryDjango, "express": tryExpress, "laravel": tryLaravel, "php": tryPHP, "rails": tryRails,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needLanguage(t, name)
			try(t)
		})
	}
}

// wantCheckOnlyReads sends session checks for b, for a visitor without a cookie and for one with an invalid cookie. They must
// not change the content, age or number of the files under dirs, where the app stores sessions, users and login events.
func wantCheckOnlyReads(t *testing.T, dirs []string, cookie string, b *browser) {
	t.Helper()
	stranger, forged := b.with(nil), b.with(nil)
	forged.client.Jar.SetCookies(b.appURL(), []*http.Cookie{{Name: cookie, Value: "0123456789abcdef0123456789abcdef"}})
	wantUnchanged(t, dirs, "session checks of a user", func() { b.wantChecks(200) })
	wantUnchanged(t, dirs, "session checks of a visitor without a cookie", func() { stranger.wantChecks(401) })
	wantUnchanged(t, dirs, "session checks with an invalid cookie", func() { forged.wantChecks(401) })
}

// wantChecks opens three streams, one after the other, each with a session check.
func (b *browser) wantChecks(status int) {
	b.t.Helper()
	for range 3 {
		answer := b.request("GET", b.hub+"/events", nil)
		var first eventstream.Event
		if answer.StatusCode == http.StatusOK {
			first, _, _ = ssetest.Of(answer).Block()
		}
		answer.Body.Close()
		if answer.StatusCode != status || first.Type == "busy" {
			b.t.Fatalf("GET /events: %s, %q, want %d", answer.Status, first, status)
		}
	}
}

// wantLogout logs the browser out of the app. When the stream ends, the app must already reject the browser's session.
func (b *browser) wantLogout(stream stream) {
	b.t.Helper()
	old := b.with(b.cookies())
	r, err := http.NewRequestWithContext(b.t.Context(), "POST", b.s.AppURL()+"/logout", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	loggedOut := make(chan error, 1)
	go func() {
		answer, err := b.client.Do(r)
		if err == nil {
			err = answer.Body.Close()
		}
		loggedOut <- err
	}()
	stream.want(`{"reason":"kicked"}`)
	old.wantChecks(401)
	stream.WantEnd(b.t)
	if err := <-loggedOut; err != nil {
		b.t.Error(err)
	}
}

// wantUnchanged sets the age of all files under dirs to ten minutes, and checks that do does not change the files.
func wantUnchanged(t *testing.T, dirs []string, what string, do func()) {
	t.Helper()
	setAge(t, dirs, 10*time.Minute)
	before := storedFiles(t, dirs)
	if len(before) == 0 {
		t.Fatalf("no files in %q", dirs)
	}
	do()
	after := storedFiles(t, dirs)
	for _, name := range slices.Sorted(maps.Keys(before)) {
		now, ok := after[name]
		switch was := before[name]; {
		case !ok:
			t.Errorf("%s removed %s", what, name)
		case now.text != was.text:
			t.Errorf("%s changed the content of %s", what, name)
		case !now.written.Equal(was.written):
			t.Errorf("%s changed the age of %s from %v to %v", what, name, time.Since(was.written).Round(time.Second), time.Since(now.written).Round(time.Second))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[name]; !ok {
			t.Errorf("%s created %s", what, name)
		}
	}
}

type storedFile struct {
	text    string
	written time.Time
}

func storedFiles(t *testing.T, dirs []string) map[string]storedFile {
	t.Helper()
	files := make(map[string]storedFile)
	eachFile(t, dirs, func(file string, info fs.FileInfo) error {
		text, err := os.ReadFile(file)
		files[file] = storedFile{string(text), info.ModTime()}
		return err
	})
	return files
}

func setAge(t *testing.T, dirs []string, age time.Duration) {
	t.Helper()
	eachFile(t, dirs, func(file string, _ fs.FileInfo) error {
		then := time.Now().Add(-age)
		return os.Chtimes(file, then, then)
	})
}

func eachFile(t *testing.T, dirs []string, do func(file string, info fs.FileInfo) error) {
	t.Helper()
	for _, dir := range dirs {
		if err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			return do(file, info)
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// wantHostAdvice checks that the hub's error names --forward-host if the app rejects the Host of a session check.
func wantHostAdvice(t *testing.T, s *doctest.Session) {
	t.Helper()
	target, err := url.Parse(s.AppURL() + "/usercast/session")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host     string
		accepted bool
	}{{target.Host, true}, {"unknown.example", false}} {
		f := auth.NewForward(auth.ForwardConfig{URL: target, Host: c.host, Timeout: 10 * time.Second})
		_, err := f.Authenticate(&http.Request{Host: target.Host, Header: http.Header{"User-Agent": {"Browser/1"}}, RemoteAddr: "127.0.0.1:1"})
		f.Close()
		if errors.Is(err, auth.ErrUnauthorized) != c.accepted || strings.Contains(auth.Hint(err), "set --forward-host") == c.accepted {
			t.Errorf("with the Host %s: %v, hint %q", c.host, err, auth.Hint(err))
		}
	}
}

var fileHeader = regexp.MustCompile(`(?m)^(?:#|//|<%#|\{#|\{\{--) ([\w./-]+\.(?:rb|py|php|js|erb|html)\b.*?)(?: %>| #\}| --\}\})?\n`)

// filesOf returns the files in a page's blocks of a language. Each begins with a comment that contains its name.
func filesOf(t *testing.T, page, lang string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for _, b := range doctest.Read(t, page).Blocks {
		if b.Lang != lang {
			continue
		}
		headers := fileHeader.FindAllStringSubmatchIndex(b.Text, -1)
		for i, h := range headers {
			end := len(b.Text)
			if i+1 < len(headers) {
				end = headers[i+1][0]
			}
			files[b.Text[h[2]:h[3]]] = b.Text[h[1]:end]
		}
	}
	return files
}

// write writes files, by name, into dir.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// wantInFile checks that a file contains the code of a page, except for the indentation.
func wantInFile(t *testing.T, page, code, file string) {
	t.Helper()
	indent := regexp.MustCompile(`(?m)^[ \t]+`)
	if !strings.Contains(indent.ReplaceAllString(textOf(t, file), ""), indent.ReplaceAllString(code, "")) {
		t.Errorf("%s does not contain what %s shows:\n%s", file, page, code)
	}
}

// wantWithoutRedis checks that a request that publishes succeeds while Redis is unresponsive, and while it is down. saved
// returns the number of rows that the app has saved.
func (b *browser) wantWithoutRedis(path string, saved func() int) {
	b.t.Helper()
	before := saved()
	stream := b.open()
	defer stream.Close()
	b.s.Redis.Freeze()
	b.wantSoon(path, []int{200, 204})
	b.s.Redis.Thaw()
	b.s.Redis.Kill()
	b.wantSoon(path, []int{200, 204})
	b.s.Redis.Restart()
	stream.wantGap() // a stream that is opened now does not receive it
	if n := saved() - before; n != 2 {
		b.t.Errorf("two requests while Redis was unavailable saved %d rows, want 2", n)
	}
}

// shown returns a file from the result of filesOf.
func shown(t *testing.T, files map[string]string, name string) string {
	t.Helper()
	if files[name] == "" {
		t.Fatalf("the page does not show %s, but %q", name, slices.Sorted(maps.Keys(files)))
	}
	return files[name]
}

// tryPHP runs examples/php, which contains the functions of the pages, with sessions in files.
func tryPHP(t *testing.T) {
	wantInFile(t, authPage, shown(t, filesOf(t, authPage, "php"), "session.php"), "php/index.php")
	wantInFile(t, logoutPage, shown(t, filesOf(t, logoutPage, "php"), "logout.php"), "php/index.php")
	wantInFile(t, publishPage, shown(t, filesOf(t, publishPage, "php"), "publish.php"), "php/index.php")
	sessions := []string{t.TempDir()}
	s := doctest.NewSession(t, "php")
	s.Do(doctest.Block{Mark: "run: app", Text: fmt.Sprintf("php -d session.save_path=%s -d session.gc_probability=0 -S 127.0.0.1:3000 index.php", sessions[0])})
	s.Do(hubBlock)
	ada := newBrowser(t, s)
	ada.post("/login", "name", "ada")
	wantCheckOnlyReads(t, sessions, "session", ada)

	// A slow request of the same visitor locks the session.
	for _, file := range slices.Collect(maps.Keys(storedFiles(t, sessions))) {
		held, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer held.Close()
		if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		ada.wantChecks(200)
		if err := syscall.Flock(int(held.Fd()), syscall.LOCK_UN); err != nil {
			t.Fatal(err)
		}

		// The session file is incomplete, as during a write.
		text := textOf(t, file)
		write(t, sessions[0], map[string]string{filepath.Base(file): text[:len(text)/2]})
		if answer := ada.ask("GET", s.AppURL()+"/usercast/session", nil); answer.StatusCode != 503 {
			t.Errorf("a session check of an incomplete session: %s, want 503", answer.Status)
		}
		write(t, sessions[0], map[string]string{filepath.Base(file): text})
	}

	ada.wantLogout(ada.open())
	if files := storedFiles(t, sessions); len(files) != 0 {
		t.Errorf("session checks after the logout created %v", files)
	}
}
