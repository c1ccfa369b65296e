package sse_test

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/labstack/echo/v4"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/sse"
)

// In an echo app the middleware has its say: its headers go out, and it sees what
// was answered.
func TestEchoMount(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		statuses := make(chan int, 10)
		c := config{}
		c.mount = func(h *sse.Handler) http.Handler {
			app := echo.New()
			app.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error {
					c.Response().Header().Set("X-App", "mine")
					err := next(c)
					statuses <- c.Response().Status
					return err
				}
			})
			app.Any("/events", h.Echo)
			return app
		}
		s := serve(t, c)
		client := newClient(t, http2, nil)
		b := browse(t, client, s.url("user=42"))
		wantStreamHead(t, b.head.StatusCode, b.head.Header)
		if got := b.head.Header.Get("X-App"); got != "mine" {
			t.Errorf("X-App: %q", got)
		}
		s.hub.Publish("42", "", "hello")
		b.want("message", "hello")
		s.hub.Finish(hub.ErrKicked, 0)
		b.want("bye", `{"reason":"kicked"}`)
		b.wantEnd()

		if b := browse(t, client, s.url("")); b.head.StatusCode != http.StatusUnauthorized {
			t.Errorf("status %d without a user", b.head.StatusCode)
		}
		got := []int{<-statuses, <-statuses}
		slices.Sort(got) // the handlers return when they like
		if !slices.Equal(got, []int{200, 401}) {
			t.Errorf("the middleware saw %d", got)
		}
		response, err := client.Post(s.url("user=42"), "text/plain", nil)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "GET" {
			t.Errorf("POST: status %d, Allow: %q", response.StatusCode, response.Header.Get("Allow"))
		}
	})
}

// The handler in an echo app of one's own, with the app's own way of logging in,
// and without Redis: the app publishes by itself.
func Example() {
	users := hub.New(hub.Config{Encode: sse.EncodeEntry, QueueFrames: 1024, QueueBytes: 1 << 20})
	streams := sse.New(sse.Config{
		Hub: users,
		Authenticate: func(r *http.Request) (auth.Identity, error) {
			session, err := r.Cookie("session")
			if err != nil {
				return auth.Identity{}, auth.ErrUnauthorized
			}
			return auth.Identity{User: session.Value}, nil // look it up
		},
	})
	app := echo.New()
	app.Any("/events", streams.Echo)
	server := httptest.NewServer(app)

	// A page of user 42: new EventSource("/events").
	request, _ := http.NewRequest(http.MethodGet, server.URL+"/events", nil)
	request.AddCookie(&http.Cookie{Name: "session", Value: "42"})
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(response.Status, response.Header.Get("Content-Type"))

	users.Publish("42", "activity", `{"kind":"comment","id":7}`)

	// When the app stops: no new streams, goodbye to the open ones, wait for them.
	users.Refuse()
	users.Finish(hub.ErrDrain, 0)
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if line := lines.Text(); len(line) > 4 && line[:5] == "data:" {
			fmt.Println(line)
		}
	}
	response.Body.Close()
	streams.Wait()
	users.Close()
	server.Close()

	// Output:
	// 200 OK text/event-stream
	// data: {"kind":"comment","id":7}
	// data: {"reason":"draining"}
}
