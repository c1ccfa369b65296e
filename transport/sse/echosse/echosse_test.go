package echosse_test

import (
	"context"
	"io"
	"log"
	"net/http"
	"slices"
	"testing"

	"github.com/labstack/echo/v4"
	"go.uber.org/goleak"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/ssetest"
	"usercast/transport/sse"
	"usercast/transport/sse/echosse"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The middleware of an echo app applies to streams: its headers are part of the response, and it receives
// the status. Pages of other origins can read errors.
func TestHandlerInAnEchoApp(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			users := hub.NewPubSub(hub.Config{Encode: sse.EncodeEntry})
			streams := sse.New(sse.Config{Hub: users.Hub, Authenticate: auth.Insecure, Origins: sse.Origins{Allow: []string{"https://app.example"}}})
			statuses := make(chan int, 10)
			app := echo.New()
			app.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
				return func(c echo.Context) error {
					c.Response().Header().Set("X-App", "mine")
					err := next(c)
					statuses <- c.Response().Status
					return err
				}
			}, echosse.CORS(streams))
			app.Any("/events", echosse.Handler(streams))
			server, err := sse.NewServer(context.Background(), sse.ServerConfig{
				Address: "127.0.0.1:0", Streams: streams, Handler: app, ErrorLog: log.New(io.Discard, "", 0),
			})
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error)
			go func() { served <- server.Serve() }()
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetHTTP1(!http2)
			transport.Protocols.SetUnencryptedHTTP2(http2)
			defer transport.CloseIdleConnections()
			url := "http://" + server.Addr().String()

			s, err := ssetest.Get(transport, url+"/events?user=42")
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Response.Header.Get("X-App"); got != "mine" {
				t.Errorf("X-App: %q", got)
			}
			users.Publish(hub.User("42"), "", "hello")
			s.Want(t, "hello")
			users.Disconnect("42")
			s.WantEvent(t, "bye", `{"reason":"kicked"}`)
			s.WantEnd(t)
			s.Close()

			r, _ := http.NewRequest(http.MethodPost, url+"/events", nil)
			response, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "GET" {
				t.Errorf("POST: status %d, Allow: %q", response.StatusCode, response.Header.Get("Allow"))
			}
			got := []int{<-statuses, <-statuses}
			if slices.Sort(got); !slices.Equal(got, []int{200, 405}) { // the handlers return in any order
				t.Errorf("the middleware saw %d", got)
			}
			r, _ = http.NewRequest(http.MethodGet, url+"/elsewhere", nil)
			r.Header.Set("Origin", "https://app.example")
			if response, err = transport.RoundTrip(r); err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != 404 || response.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
				t.Errorf("a wrong path: status %d, header %v", response.StatusCode, response.Header)
			}

			users.Refuse()
			users.Finish(hub.ReasonDrain, 0)
			users.Close()
			if err := server.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}
