package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"io"
	"mime"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"usercast/internal/finding"
	"usercast/internal/loopback"
)

// demoFiles are the template of the page and its assets.
//
//go:embed demo
var demoFiles embed.FS

var demoTemplate = template.Must(template.ParseFS(demoFiles, "demo/index.html"))

// demoTypes are the content types of the assets. Package mime would prefer the table of the system, which may have a
// type for scripts that browsers reject because of nosniff.
var demoTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

const (
	// demoPolicy restricts the page to resources of this listener, because the page shows payloads that any client
	// can publish.
	demoPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

	demoMaxBody        = 1<<20 + 64<<10 // bytes: a payload of 1 MiB, its JSON escapes and the other fields
	demoPublishTimeout = 5 * time.Second
)

// demoPage is the data of the page.
type demoPage struct {
	Path      string // of the stream, "/events"
	Prefix    string // channel prefix, "user-"
	Separator string // of user and topic, ":"
	RedisPort int    // for the redis-cli command
	User      string // the user whose stream opens automatically, "42"
}

// mountDemo serves the page at / and handles POST /publish for its form. Use it for the public listener of
// `usercast dev` only: any client that can connect to it can publish to all users.
//
// The function publish returns the number of subscribers to which Redis sent the message. It is called with a deadline,
// from many goroutines.
func mountDemo(e *echo.Echo, page demoPage, publish func(ctx context.Context, channel, payload string) (receivers int64, err error)) {
	d := &demo{page: page, publish: publish, origins: http.NewCrossOriginProtection()}
	e.Match([]string{http.MethodGet, http.MethodHead}, "/", d.index)
	e.POST("/publish", d.post)
	files, err := demoFiles.ReadDir("demo")
	if err != nil {
		panic(err) // cannot happen: the files are embedded
	}
	for _, f := range files {
		if contentType := demoTypes[path.Ext(f.Name())]; contentType != "" {
			e.Match([]string{http.MethodGet, http.MethodHead}, "/demo/"+f.Name(), asset("demo/"+f.Name(), contentType))
		}
	}
}

// A demo handles the requests of the page. Immutable after mountDemo.
type demo struct {
	page    demoPage
	publish func(ctx context.Context, channel, payload string) (int64, error)
	origins *http.CrossOriginProtection
}

// index renders the page.
func (d *demo) index(c echo.Context) error {
	if isRebound(c.Request()) {
		return echo.NewHTTPError(http.StatusForbidden, reboundSentence)
	}
	other := "7"
	if d.page.User == other {
		other = "42"
	}
	const topic, payload = "activity", `{"kind":"comment","id":7}`
	type panel struct{ Key, User string }
	var body bytes.Buffer
	err := demoTemplate.Execute(&body, struct {
		demoPage
		Channel, Topic, Payload string
		Command                 []string
		Panels                  []panel
	}{
		demoPage: d.page,
		Channel:  d.page.channel(d.page.User, topic),
		Topic:    topic,
		Payload:  payload,
		Command:  d.page.command(topic, payload),
		Panels:   []panel{{"a", d.page.User}, {"b", other}},
	})
	if err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set("Content-Security-Policy", demoPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	return c.HTMLBlob(http.StatusOK, body.Bytes())
}

// asset serves one embedded file.
func asset(name, contentType string) echo.HandlerFunc {
	body, err := demoFiles.ReadFile(name)
	if err != nil {
		panic(err) // cannot happen: the file is embedded
	}
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-cache") // the file may differ in the next build
		return c.Blob(http.StatusOK, contentType, body)
	}
}

// post publishes the message of the form.
func (d *demo) post(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	c.Response().Header().Set("X-Content-Type-Options", "nosniff")
	r := c.Request()
	fail := func(status int, sentence string) error {
		return c.JSON(status, map[string]string{"error": sentence})
	}

	// The page does not authenticate users, so requests from pages of other sites must be rejected: those sent by fetch
	// (by Fetch metadata and Origin), those sent by a form (which cannot send JSON), and those to a host name of that
	// site that resolves to this host (DNS rebinding).
	if isRebound(r) {
		return fail(http.StatusForbidden, reboundSentence)
	}
	if err := d.origins.Check(r); err != nil {
		return fail(http.StatusForbidden, "cross-site requests are not allowed")
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return fail(http.StatusUnsupportedMediaType, "the body must be JSON, with Content-Type: application/json")
	}

	var form struct{ User, Topic, Payload string }
	body := json.NewDecoder(http.MaxBytesReader(c.Response(), r.Body, demoMaxBody))
	body.DisallowUnknownFields()
	err := body.Decode(&form)
	if err == nil {
		if _, err = body.Token(); err == io.EOF {
			err = nil
		} else if err == nil {
			err = errors.New("more than one value")
		}
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return fail(http.StatusRequestEntityTooLarge, "message too large: the maximum payload is 1 MiB")
	}
	if err != nil {
		return fail(http.StatusBadRequest, `the body must be JSON of the form {"user":"42","topic":"activity","payload":"…"}`)
	}
	switch {
	case form.User == "":
		return fail(http.StatusBadRequest, "a user id is required; * broadcasts to all users")
	case strings.Contains(form.User, d.page.Separator):
		return fail(http.StatusBadRequest, "a user id must not contain "+d.page.Separator+"; use the field topic for the topic")
	}

	ctx, cancel := context.WithTimeout(r.Context(), demoPublishTimeout)
	defer cancel()
	receivers, err := d.publish(ctx, d.page.channel(form.User, form.Topic), form.Payload)
	if err != nil {
		return fail(http.StatusBadGateway, "publishing to Redis failed: "+err.Error())
	}
	return c.JSON(http.StatusOK, map[string]int64{"receivers": receivers})
}

// channel returns the channel name <prefix><user>[<separator><topic>].
func (p demoPage) channel(user, topic string) string {
	if topic == "" {
		return p.Prefix + user
	}
	return p.Prefix + user + p.Separator + topic
}

// command returns the words of a shell command that publishes to the user.
func (p demoPage) command(topic, payload string) []string {
	return []string{"redis-cli", "-p", strconv.Itoa(p.RedisPort), "PUBLISH", shellWord(p.channel(p.User, topic)), shellWord(payload)}
}

// shellWord quotes s for a POSIX shell if necessary.
func shellWord(s string) string {
	special := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:/", r)
	}
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	return finding.ShellQuoted(s)
}

const reboundSentence = "this page is available only on this machine, at http://127.0.0.1 or http://localhost"

// isRebound reports whether the request arrived on a loopback address under a host name that is not a loopback name:
// another site may have made that name resolve to this host (DNS rebinding).
func isRebound(r *http.Request) bool { return arrivedOnLoopback(r) && !loopback.IsHost(r.Host) }

// arrivedOnLoopback reports whether the local address of the request is a loopback address. It returns true for a request
// without a local address.
func arrivedOnLoopback(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return !ok || addr.IP.IsLoopback()
}
