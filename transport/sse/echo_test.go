package sse_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/labstack/echo/v4"

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
		s.hub.Finish(hub.ReasonKicked, 0)
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
