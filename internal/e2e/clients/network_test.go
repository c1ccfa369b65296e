//go:build clients

package clients

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"usercast/internal/certtest"
)

// reopenBehindWorker restarts a hub while a service worker handles the page's requests.
func reopenBehindWorker(t *testing.T, all []client) {
	h, sessions := startReopening(t, all, false, "--feed", "stream")
	for _, s := range sessions {
		s.page.Text(`void navigator.serviceWorker.register("/worker.js")`)
		if err := s.await("the page has a service worker", func() bool {
			return s.page.Text("navigator.serviceWorker.controller?.state") == "activated"
		}); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		s.page.Text("es.close(), lastEventId = '', connect()") // the worker handles the new stream
		if err := s.awaitStream(2); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	killWhileDown(t, h, sessions, true, (*session).awaitClosed)
	for _, s := range sessions {
		if err := s.wantReopened(); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

// reopenAfterNetworkChange changes the network of an idle Firefox before the first message, and publishes while the
// page is not connected.
func reopenAfterNetworkChange(t *testing.T, all []client) {
	_, sessions := startReopening(t, withNetworkChange(all), false)
	each(t, sessions, func(s *session) error {
		if err := s.changeNetwork(); err != nil {
			return err
		}
		if err := s.awaitClosed(); err != nil {
			return err
		}
		for n := 1; n <= 3; n++ {
			if err := s.publish(n); err != nil {
				return err
			}
		}
		if err := s.awaitStream(2); err != nil {
			return err
		}
		if err := s.wantReopened(); err != nil {
			return err
		}
		return s.expect(4)
	})
}

// surviveNetworkChange changes the network of a Firefox that receives a ping within 5 s.
func surviveNetworkChange(t *testing.T, all []client) {
	h := startHub(t, "--ping-interval", "2s")
	each(t, startAll(t, h, withNetworkChange(all)), func(s *session) error {
		if err := s.changeNetwork(); err != nil {
			return err
		}
		<-time.After(8 * time.Second) // Firefox closes an idle connection after 5
		if n := s.relay.count(requests); n != 1 {
			return s.explain(fmt.Errorf("the browser has sent %d requests, want 1", n))
		}
		return s.expect(1)
	})
}

// surviveNetworkChangeOverHTTP2 changes the network of a Firefox with an idle stream over HTTP/2.
func surviveNetworkChangeOverHTTP2(t *testing.T, all []client) {
	cert, key := certtest.New(t, "hub").Write(t, t.TempDir())
	h := startHub(t, "--tls-cert", cert, "--tls-key", key)
	var sessions []*session
	for _, c := range withNetworkChange(all) {
		s := newSession(t, h, c, "u")
		s.address = "https://" + h.Public + "/livez"
		sessions = append(sessions, s)
	}
	each(t, sessions, func(s *session) error {
		if err := s.start(); err != nil {
			return err
		}
		s.page.Text(`window.received = [], window.errors = 0;
			window.es = new EventSource("/events?user=` + s.user + `");
			es.onmessage = event => received.push({ type: "message", data: event.data });
			es.onerror = () => errors++`)
		if err := s.await("the stream is open", func() bool { return s.page.Text("es.readyState") == "1" }); err != nil {
			return err
		}
		if got := s.page.Text(`performance.getEntriesByType("navigation")[0].nextHopProtocol`); got != "h2" {
			return fmt.Errorf("the page was loaded over %s", got)
		}
		if err := s.changeNetwork(); err != nil {
			return err
		}
		<-time.After(8 * time.Second) // Firefox closes an idle connection of HTTP/1.1 after 5
		if got := s.page.Text("errors + ' errors, readyState ' + es.readyState"); got != "0 errors, readyState 1" {
			return fmt.Errorf("the stream has %s", got)
		}
		return s.expect(1)
	})
}

// withNetworkChange returns the browsers that can be notified of a network change.
func withNetworkChange(all []client) []client {
	return slices.DeleteFunc(slices.Clone(all), func(c client) bool { return c.changeNetwork == nil })
}
