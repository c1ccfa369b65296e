package client_test

import (
	"fmt"
	"testing"

	"usercast/internal/browsertest"
	"usercast/internal/hubtest"
	"usercast/internal/need"
)

// The tests of the console in Firefox and WebKit are also here, because starting these browsers takes long.
func TestInFirefoxAndWebKit(t *testing.T) {
	need.Program(t, "redis-server")
	h := startHub(t, "--ping-interval", "300ms")
	const token = "correct-horse"
	console := hubtest.Start(t, h.Redis, "--admin-token-file", hubtest.SecretFile(t, token)).AdminURL("/")
	t.Run("Firefox blocks cookies", func(t *testing.T) {
		t.Parallel()
		browser := browsertest.StartFirefox(t, `user_pref("network.cookie.cookieBehavior", 2);`)
		blockedCookies(t, h, browser)
		signIn(t, browser, console, token) // the page cannot use storage
	})
	t.Run("WebKit", func(t *testing.T) {
		t.Parallel()
		browser := browsertest.StartWebKit(t, "LANG=C.UTF-8")
		closedStaysClosed(t, h, browser)
		signIn(t, browser, console, token) // navigator.language is not a language tag
	})
}

// signIn signs in to the console, and waits until it shows its charts.
func signIn(t *testing.T, browser *browsertest.WebDriver, console, token string) {
	t.Helper()
	p := browser.Open(t, console)
	p.UntilDocument(`document.body.dataset.view == "signin"`)
	p.UntilDocument(fmt.Sprintf(`document.getElementById("signin-token").value = %q`, token))
	p.UntilDocument(`!document.getElementById("signin-form").requestSubmit()`)
	p.UntilDocument(`document.getElementById("state").innerText == "live" && document.querySelector("#chart-streams canvas")`)
}

// If Firefox blocks cookies for a page, the constructor of BroadcastChannel throws, and requests for Web
// Locks are rejected.
func blockedCookies(t *testing.T, h *hub, browser *browsertest.WebDriver) {
	t.Helper()
	s := startSite(t, h)
	p := browser.Open(t, s.URL+"/")
	p.Text(listener)
	p.Text("listen(" + s.stream() + ").catch(error => errors.push(String(error)))")
	p.Until("errors.length || window.stream?.state == 'open'")
	h.publish(s.channel("a"), "hello")
	p.Until("errors.length || received.length")
	if got := p.Text("JSON.stringify({received, gaps, errors})"); got != `{"received":["hello"],"gaps":[],"errors":[]}` {
		t.Errorf("the page: %s", got)
	}
}

// WebKit reopens an EventSource that was closed when its page entered the back/forward cache. A page
// must still have exactly one stream after several returns.
func closedStaysClosed(t *testing.T, h *hub, browser *browsertest.WebDriver) {
	t.Helper()
	s := startSite(t, h)
	p := browser.Open(t, s.URL+"/")
	p.Text(listener + `
		window.sources = [], window.reopened = 0, window.pings = 0, window.returns = 0;
		addEventListener("pageshow", event => { if (event.persisted) returns++, reopened = pings = 0 });
		window.EventSource = class extends EventSource {
			constructor(...args) {
				super(...args);
				sources.push(this);
				this.addEventListener("error", () => { if (this != sources.at(-1)) reopened++ });
				this.addEventListener("ping", () => { if (this == sources.at(-1)) pings++ });
			}
		};`)
	p.Text("void listen(" + s.stream() + ")")
	p.Until("window.stream?.state == 'open'")
	for returns := 1; returns <= 3; returns++ {
		p.Go(s.URL + "/elsewhere")
		hubtest.Eventually(t, "the page's stream has ended", func() bool { return h.streams(t, s.user) == 0 })
		p.Back()
		p.Until(fmt.Sprintf("returns == %d && stream.state == 'open' && (reopened || pings > 9)", returns))
		if open := p.Text("sources.filter(source => source.readyState != 2).length"); open != "1" {
			t.Fatalf("%s of %s EventSources are not closed, want 1", open, p.Text("sources.length"))
		}
	}
	hubtest.Eventually(t, "there is one stream", func() bool { return h.streams(t, s.user) == 1 })
	h.publish(s.channel("a"), "hello")
	p.Until("received.length")
	if got := p.Text("JSON.stringify({received, gaps, errors})"); got != `{"received":["hello"],"gaps":[],"errors":[]}` {
		t.Errorf("the page: %s", got)
	}
}
