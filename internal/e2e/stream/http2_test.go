package stream

import (
	"net/http"
	"testing"

	"usercast/hub"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// Over HTTP/2, all tabs share one connection, which stays open when a stream ends or is rejected.
func TestStreamsShareAnHTTP2Connection(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--max-clients-per-user", "2", "--retry", "2s")
	app := hubtest.NewPublisher(t, server.Addr())
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: hubtest.Patience}
	open := func(user, accept string) *ssetest.Stream {
		t.Helper()
		r, err := http.NewRequest("GET", h.PublicURL("/events?user="+user), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return ssetest.Of(resp)
	}

	first, second, other := open("42", "text/event-stream"), open("42", "text/event-stream"), open("7", "text/event-stream")
	if first.Response.ProtoMajor != 2 {
		t.Fatalf("response over %s", first.Response.Proto)
	}
	refused := open("42", "text/event-stream")
	refused.WantEvent(t, "busy", `{"reason":"user-limit"}`)
	refused.WantEnd(t)
	if code := open("42", "*/*").Response.StatusCode; code != 429 {
		t.Errorf("a third stream: %d", code)
	}
	app.Publish(t, "user-42", "hello")
	app.Publish(t, "user-*", "to all")
	for _, p := range []*ssetest.Stream{first, second} {
		p.Want(t, "hello", "to all")
	}
	other.Want(t, "to all")

	first.Close()
	hubtest.Within(t, hubtest.Soon, "the closed stream has ended", func() bool { return h.Hub().Stats().Disconnects[hub.ReasonClosed] == 1 })
	app.Publish(t, "user-42", "to the remaining stream")
	second.Want(t, "to the remaining stream")

	h.Interrupt()
	for _, p := range []*ssetest.Stream{second, other} {
		p.WantEvent(t, "bye", `{"reason":"draining"}`)
		p.WantEnd(t)
	}
	h.Wait(t)
}
