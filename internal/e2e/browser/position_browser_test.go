package browser

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"usercast/internal/app"
	"usercast/internal/browsertest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// A renderingApp renders a user's messages into its pages, each with the position from which its stream continues.
type renderingApp struct {
	*httptest.Server
	askAt *hubtest.Hub // for positions

	mu     sync.Mutex
	stored []string // the state
}

// newRenderingApp starts an app whose pages ask one hub for the position, and reach a hub of their own at /events.
func newRenderingApp(t *testing.T, askAt, openAt *hubtest.Hub) *renderingApp {
	a := &renderingApp{askAt: askAt}
	hub, err := url.Parse(openAt.PublicURL(""))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(hub)
	proxy.FlushInterval = -1
	mux := http.NewServeMux()
	mux.Handle("/events", proxy)
	mux.HandleFunc("/", a.page)
	a.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		a.CloseClientConnections()
		a.Close()
	})
	return a
}

// page asks for the position, then reads the state, then renders both.
func (a *renderingApp) page(w http.ResponseWriter, _ *http.Request) {
	response, err := hubtest.TryRequest("GET", a.askAt.AdminURL("/api/users/42/position"), "Authorization: Bearer "+positionToken)
	if err != nil || response.Status != 200 {
		http.Error(w, fmt.Sprint(response, err), 500)
		return
	}
	var position struct{ ID string }
	if err := json.Unmarshal([]byte(response.Body), &position); err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	a.mu.Lock()
	state, err := json.Marshal(a.stored)
	a.mu.Unlock()
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprintf(w, "<!doctype html><title>app</title><script>const state = %s, position = %q;\n%s</script>", state, position.ID, browsertest.EventSourceScript)
}

const positionToken = "the token of the app"

// What is published between rendering a page and its stream arrives once, also at another hub.
func pageContinuesWhereItWasRendered(t *testing.T, browser *browsertest.Browser) {
	for _, feed := range []string{app.FeedPubSub, app.FeedStream} {
		server := redistest.Start(t)
		flags := []string{"--feed", feed, "--api-token-file", hubtest.SecretFile(t, positionToken)}
		one, two := hubtest.Start(t, server, flags...), hubtest.Start(t, server, flags...)
		one.AwaitReady(t)
		two.AwaitReady(t)
		publisher := hubtest.NewPublisher(t, server.Addr())
		for name, openAt := range map[string]*hubtest.Hub{"the same hub": one, "another hub": two} {
			a := newRenderingApp(t, one, openAt)
			publish := func(message string) {
				a.mu.Lock()
				defer a.mu.Unlock()
				a.stored = append(a.stored, message)
				if feed == app.FeedStream {
					publisher.Append(t, "user-42", message)
				} else {
					publisher.Publish(t, "user-42", message)
				}
			}
			publish("before")
			p := browsertest.EventSource{Page: browser.Open(t, a.URL)}
			publish("between, 1")
			publish("between, 2")
			p.Run("listen('/events?user=42&last-event-id=' + encodeURIComponent(position))")
			p.Until("es.readyState == 1")
			publish("after")
			p.WantReceived("message between, 1", "message between, 2", "message after")
			if got, want := p.Text("JSON.stringify(state)"), `["before"]`; got != want {
				t.Errorf("%s, %s: the page was rendered with %s, want %s", feed, name, got, want)
			}
			p.Run("es.close()")
		}
	}
}
