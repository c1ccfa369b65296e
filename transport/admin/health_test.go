package admin_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"
	"go.uber.org/goleak"

	"usercast/transport/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ready    = admin.Status{Ready: true, Feeds: []admin.FeedLink{{Feed: "pubsub", Redis: "127.0.0.1:6379", Connected: true}}}
	outage   = admin.Status{Ready: true, Feeds: []admin.FeedLink{{Feed: "pubsub", Redis: "127.0.0.1:6379"}}}
	stopping = admin.Status{Why: "stopping", Feeds: ready.Feeds}
)

func TestHealthAnswers(t *testing.T) {
	const feed = `"feeds":[{"feed":"pubsub","redis":"127.0.0.1:6379","connected":`
	for _, test := range []struct {
		name    string
		status  admin.Status
		verbose bool
		path    string
		code    int
		body    string
	}{
		{"alive", stopping, false, "/livez", 200, "ok\n"},
		{"alive, admin", stopping, true, "/livez", 200, "ok\n"},
		{"ready", ready, false, "/readyz", 200, "ok\n"},
		{"ready, admin", ready, true, "/readyz", 200, `{"ready":true,` + feed + "true}]}\n"},
		{"unavailable redis", outage, false, "/readyz", 200, "ok\n"},
		{"unavailable redis, admin", outage, true, "/readyz", 200, `{"ready":true,` + feed + "false}]}\n"},
		{"stopping", stopping, false, "/readyz", 503, "not ready\n"},
		{"stopping, admin", stopping, true, "/readyz", 503, `{"ready":false,"why":"stopping",` + feed + "true}]}\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := admin.NewEcho()
			admin.MountHealth(e, func() admin.Status { return test.status }, test.verbose)

			answer := ask(e, "GET", test.path, nil)
			if answer.Code != test.code || answer.Body.String() != test.body {
				t.Errorf("GET: %d %q, want %d %q", answer.Code, answer.Body, test.code, test.body)
			}
			if test.path == "/readyz" && answer.Header().Get("Cache-Control") != "no-store" {
				t.Error("a response may be cached")
			}
			if answer := overWire(t, e, "HEAD", test.path); answer.StatusCode != test.code {
				t.Errorf("HEAD: %d, want %d", answer.StatusCode, test.code)
			}
			if answer := ask(e, "POST", test.path, nil); answer.Code != 405 {
				t.Errorf("POST: %d, want 405", answer.Code)
			}
		})
	}
}

func TestErrorsAreOneJSONSentence(t *testing.T) {
	e := admin.NewEcho()
	e.GET("/fails", func(echo.Context) error { return http.ErrAbortHandler })
	for path, want := range map[string]string{
		"/nothing": `{"error":"not found"}` + "\n",
		"/fails":   `{"error":"internal server error"}` + "\n", // without details
	} {
		answer := ask(e, "GET", path, nil)
		if answer.Body.String() != want {
			t.Errorf("%s: %d %q, want %q", path, answer.Code, answer.Body, want)
		}
		if got := answer.Header().Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: content type %q", path, got)
		}
	}
}

// ask sends a request from loopback to e. change can modify it.
func ask(e *echo.Echo, method, path string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1:8081"+path, nil)
	r.RemoteAddr = "127.0.0.1:40000"
	if change != nil {
		change(r)
	}
	answer := httptest.NewRecorder()
	e.ServeHTTP(answer, r)
	return answer
}

// overWire sends a request to a real server, which removes the body of responses to HEAD.
func overWire(t *testing.T, e *echo.Echo, method, path string) *http.Response {
	t.Helper()
	server := httptest.NewServer(e)
	defer server.Close()
	r, err := http.NewRequest(method, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer
}

func TestErrorsAreNotEscapedForHTML(t *testing.T) {
	e := admin.NewEcho()
	e.GET("/", func(echo.Context) error { return echo.NewHTTPError(http.StatusBadGateway, "ACL SETUSER hub &user-*") })
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if got := strings.TrimSpace(w.Body.String()); w.Code != 502 || got != `{"error":"ACL SETUSER hub &user-*"}` || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %s", w.Code, got)
	}
}

// A batch that failed names the error of Redis, which is not escaped for HTML.
func TestResponsesToBatchesAreNotHTML(t *testing.T) {
	for want, err := range map[int]error{200: nil, 502: errors.New("ACL SETUSER hub &user-*")} {
		e, api := admin.NewEcho(), stubAPI()
		api.PublishAll = func(context.Context, []admin.Publication) (int, error) { return 1, err }
		admin.MountAPI(e, api, tokens("", ""))
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/api/messages", strings.NewReader(`{"user":"42","data":"x"}`))
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		if got := w.Header().Values("X-Content-Type-Options"); w.Code != want || !slices.Equal(got, []string{"nosniff"}) {
			t.Errorf("%d %q %s", w.Code, got, w.Body)
		}
	}
}
