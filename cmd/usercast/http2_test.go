package main

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"usercast/hub"
	"usercast/internal/redistest"
)

// Over HTTP/2 all tabs share one connection, which outlives each stream's end and
// each refusal.
func TestStreamsShareAnHTTP2Connection(t *testing.T) {
	server := redistest.Start(t)
	h := startHub(t, server, "--max-clients-per-user", "2", "--retry", "2s")
	app := newPublisher(t, server.Addr())
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience}
	open := func(user, accept string) *page {
		t.Helper()
		r, err := http.NewRequest("GET", h.public("/events?user="+user), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return &page{head: resp, body: bufio.NewReader(resp.Body)}
	}

	first, second, other := open("42", "text/event-stream"), open("42", "text/event-stream"), open("7", "text/event-stream")
	if first.head.ProtoMajor != 2 {
		t.Fatalf("answered over %s", first.head.Proto)
	}
	refused := open("42", "text/event-stream")
	refused.wantEvent(t, "busy", `{"reason":"user-limit"}`)
	refused.wantEnd(t)
	if code := open("42", "*/*").head.StatusCode; code != 429 {
		t.Errorf("a third stream: %d", code)
	}
	app.publish(t, "user-42", "hello")
	app.publish(t, "user-*", "to all")
	for _, p := range []*page{first, second} {
		p.want(t, "hello", "to all")
	}
	other.want(t, "to all")

	first.close()
	within(t, soon, "the closed stream is gone", func() bool { return h.Hub().Stats().Disconnects[hub.ReasonClosed] == 1 })
	app.publish(t, "user-42", "to the one that is left")
	second.want(t, "to the one that is left")

	h.stop(errInterrupt)
	for _, p := range []*page{second, other} {
		p.wantEvent(t, "bye", `{"reason":"draining"}`)
		p.wantEnd(t)
	}
	h.wait(t)
}

// openOver opens a stream over a transport and reads its opening block.
func openOver(t *testing.T, transport *http.Transport, url string, headers ...string) *page {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	p := &page{head: resp, body: bufio.NewReader(resp.Body)}
	if e, fires, err := p.block(); err != nil || fires || p.lastID == "" {
		t.Fatalf("a stream begins with %+v, id %q, %v", e, p.lastID, err)
	}
	return p
}
