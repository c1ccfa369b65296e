package browser

import (
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"usercast/internal/browsertest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// TestInChromium tests the hub with a real browser. All tests share one browser, because starting it
// takes longer than most of them.
func TestInChromium(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	browser := browsertest.Start(t, browsertest.OneProcess)
	run := func(tests map[string]func(*testing.T, *browsertest.Browser), parallel bool) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				if parallel {
					t.Parallel()
				}
				test(t, browser)
			})
		}
	}
	run(map[string]func(*testing.T, *browsertest.Browser){
		"page receives messages of its user":              pageReceives,
		"page survives a killed hub":                      pageReconnectsAfterHubIsKilled,
		"page receives a gap after Redis is killed":       pageReceivesGapAfterRedisIsKilled,
		"page reconnects after busy":                      pageReconnectsAfterBusy,
		"page reconnects after bye":                       pageReconnectsAfterBye,
		"page resumes from the position of a ping":        pageResumesFromPing,
		"page reconnects to the next hub":                 pageReconnectsToNextHub,
		"page continues where it was rendered":            pageContinuesWhereItWasRendered,
		"error status closes the EventSource permanently": errorStatusClosesEventSource,
		"page of another origin needs --allow-origin":     pageOfAnotherOrigin,
		"page of another site cannot use the cookie":      pageOfAnotherSite,
	}, true)
	// These tests run one after the other, because only one tab has the keyboard focus.
	run(map[string]func(*testing.T, *browsertest.Browser){
		"console shows users and disconnects one": consoleShowsUsers,
		"console shows groups and online users":   consoleShowsGroups,
		"console requests each lookup once":       consoleRequestsEachLookupOnce,
		"console looks up users without groups":   consoleLooksUpUsersWithoutGroups,
		"console shows the hubs of the fleet":     consoleShowsTheFleet,
		"console fits a phone screen":             consoleFitsAPhone,
		"console recovers from failures":          consoleRecoversFromFailures,
		"console prompts for the token":           consolePromptsForTheToken,
	}, false)
}

func pageReceives(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--ping-interval", "300ms")
	app := hubtest.NewPublisher(t, server.Addr())
	all := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42")
	named := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42&event=topic&topic=activity&topic=gap")
	other := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=7")
	for _, p := range []browsertest.EventSource{all, named, other} {
		p.Until("es.readyState == 1")
	}
	app.Publish(t, "user-42:activity", `{"kind":"comment","id":7}`)
	app.Publish(t, "user-42", "")
	app.Publish(t, "user-42", "a\r\nb\rc\nd\n")
	app.Publish(t, "user-42:gap", "no gap")
	app.Publish(t, "user-42", "grüße 👋 \xff")
	app.Publish(t, "user-*:activity", "to all")
	all.WantReceived(`message {"kind":"comment","id":7}`, "message ", "message a\nb\nc\nd\n", "message no gap", "message grüße 👋 �", "message to all")
	named.WantReceived(`activity {"kind":"comment","id":7}`, "message no gap", "activity to all")
	other.WantReceived("message to all")

	// Pings and opening blocks dispatch no event unless the page requests ping events.
	pinged := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42&ping=event")
	pinged.Until("fired.length >= 2 && fired.every(e => e.name == 'ping' && e.data == '{}')")
	if got := len(all.Received(6)); got != 6 {
		t.Errorf("the page received %d events, want 6", got)
	}
	// A closed tab is detected immediately.
	pinged.Run("es.close()")
	hubtest.Within(t, hubtest.Soon, "the closed stream has ended", func() bool { return h.Hub().Stats().Clients == 3 })
}

func pageReconnectsAfterHubIsKilled(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	app := hubtest.NewPublisher(t, server.Addr())
	listen := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))
	first, _, _ := hubtest.Serve(t, server, nil, "--listen", listen, "--retry", "200ms")
	p := browsertest.OpenEventSource(t, browser, "http://"+listen, "/events?user=42")
	p.Until("es.readyState == 1")
	app.Publish(t, "user-42", "before")
	p.WantReceived("message before")

	first.Signal(syscall.SIGKILL)
	first.Wait(t)
	p.Until("errors.length >= 3") // connections are refused, and the page retries
	app.Publish(t, "user-42", "missed")
	hubtest.Serve(t, server, nil, "--listen", listen, "--retry", "200ms")
	p.Until("opens == 2")
	if got := p.Received(2)[1]; got != `gap {"reason":"unknown-id"}` {
		t.Errorf("the page received %q", got)
	}
	app.Publish(t, "user-42", "after")
	p.Until("fired.at(-1).data == 'after'")
	// If "after" arrives before the hub has subscribed, the page also receives a gap for that.
	got := slices.DeleteFunc(p.Received(3), func(e string) bool { return e == `gap {"reason":"redis-reconnect"}` })
	if want := []string{"message before", `gap {"reason":"unknown-id"}`, "message after"}; !slices.Equal(got, want) {
		t.Errorf("the page received %q, want %q", got, want)
	}
	p.WantAlive()
}

func pageReceivesGapAfterRedisIsKilled(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	p := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42")
	p.Until("es.readyState == 1")
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "before")
	p.WantReceived("message before")
	server.Restart()
	p.WantReceived("message before", `gap {"reason":"redis-reconnect"}`)
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "after")
	p.WantReceived("message before", `gap {"reason":"redis-reconnect"}`, "message after")
	if got := p.Text("opens + ' ' + errors.length"); got != "1 0" {
		t.Errorf("the page reconnected: opens and errors are %s, want 1 0", got)
	}
}

func pageReconnectsAfterBusy(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--max-clients", "1", "--retry", "50ms")
	occupant := h.Open(t, "user=7")
	p := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42")
	p.Until("fired.filter(e => e.name == 'busy').length >= 3")
	p.WantAlive()
	if got := p.Received(3)[0]; got != `busy {"reason":"clients"}` {
		t.Errorf("the page received %s", got)
	}
	occupant.Close()
	hubtest.Eventually(t, "the page is connected", func() bool {
		s := h.Hub().Stats()
		return s.Clients == 1 && s.Connects == 2
	})
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "hello")
	p.Until("fired.at(-1).name == 'message' && fired.at(-1).data == 'hello'")
	p.WantAlive()
}

func pageReconnectsAfterBye(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--max-age", "500ms", "--retry", "50ms")
	p := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42")
	p.Until("opens >= 3")
	p.WantAlive()
	// No message is missing, so there is no gap.
	for _, e := range p.Received(2) {
		if e != `bye {"reason":"max_age"}` {
			t.Errorf("the page received %s", e)
		}
	}
}

// Messages to other users advance the position. A page that has received it in pings does not need to refetch.
func pageResumesFromPing(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--ping-interval", "100ms", "--max-age", "2s", "--retry", "50ms")
	p := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42")
	p.Until("opens >= 1")
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-7", "for another user")
	p.Until("opens >= 2")
	p.WantReceived(`bye {"reason":"max_age"}`)
}

// A deploy: the hub stops gracefully, and the next one uses the same port.
func pageReconnectsToNextHub(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	listen := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))
	flags := []string{"--listen", listen, "--retry", "100ms", "--drain-delay", "1s", "--drain", "100ms"}
	first, _, _ := hubtest.Serve(t, server, nil, flags...)
	p := browsertest.OpenEventSource(t, browser, "http://"+listen, "/events?user=42")
	p.Until("es.readyState == 1")
	late := browsertest.EventSource{Page: browser.Open(t, "http://"+listen+"/livez")} // opened early, because opening a tab takes longer than the drain
	late.Run(browsertest.EventSourceScript)
	first.Signal(syscall.SIGTERM)
	hubtest.Eventually(t, "the hub drains", func() bool { return len(first.Stderr.Lines("msg=stopping")) == 1 })
	late.Run("listen('/events?user=42')")
	late.Until("fired.length > 0 && fired[0].name == 'busy' && fired[0].data == '{\"reason\":\"draining\"}'")
	p.WantReceived(`bye {"reason":"draining"}`)
	if code := first.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	hubtest.Serve(t, server, nil, flags...)
	app := hubtest.NewPublisher(t, server.Addr())
	for _, p := range []browsertest.EventSource{p, late} {
		p.Until("es.readyState == 1")
		p.WantAlive()
	}
	app.Publish(t, "user-*", "from the next")
	for _, p := range []browsertest.EventSource{p, late} {
		p.Until("fired.at(-1).data == 'from the next'")
	}
}

// The reason for busy events: any status other than 200 closes an EventSource permanently.
func errorStatusClosesEventSource(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	p := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events") // not authenticated
	p.Until("es.readyState == 2")
	if n := h.StreamStats().Rejects["unauthorized"]; n != 1 {
		t.Errorf("%d requests were rejected, want 1", n)
	}
}

func pageOfAnotherOrigin(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	page := hubtest.Start(t, server) // serves a page on another port
	listed := hubtest.Start(t, server, "--allow-origin", page.PublicURL(""))
	app := hubtest.NewPublisher(t, server.Addr())

	p := browsertest.OpenEventSource(t, browser, page.PublicURL(""), listed.PublicURL("/events?user=42"))
	p.Until("es.readyState == 1")
	if n := app.Publish(t, "user-42", "hello"); n != 2 {
		t.Errorf("%d hubs received the message, want 2", n)
	}
	p.WantReceived("message hello")

	// Libraries for tracing add headers to every fetch, so the browser sends a preflight request.
	const traced = `{headers: {traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", baggage: "a=b", "sentry-trace": "c"}}`
	p.Run(fmt.Sprintf(`fetch(%q, %s).then(r => r.body.getReader().read()).then(r => window.opening = new TextDecoder().decode(r.value))`, listed.PublicURL("/events?user=42"), traced))
	p.Until(`window.opening?.startsWith(":\nretry: ")`)

	other := hubtest.Start(t, server)
	foreign := browsertest.OpenEventSource(t, browser, page.PublicURL(""), other.PublicURL("/events?user=42"))
	foreign.Until("es.readyState == 2")
	if n := other.StreamStats().Rejects["origin"]; n != 1 {
		t.Errorf("%d requests were rejected because of their origin, want 1", n)
	}
}

// A page of another origin cannot open a stream with its visitor's cookie, even if it is of the same
// site, so that the browser sends the cookie.
func pageOfAnotherSite(t *testing.T, browser *browsertest.Browser) {
	const secret = "a secret of thirty-two characters"
	server := redistest.Start(t)
	app := hubtest.NewPublisher(t, server.Addr())
	at := func(h *hubtest.Hub, host string) string {
		_, port, err := net.SplitHostPort(h.PublicAddr())
		if err != nil {
			t.Fatal(err)
		}
		return "http://" + host + ".localhost:" + port
	}
	page := hubtest.Start(t, server) // its /livez is the page
	allowed := at(page, "allowed.app")
	h := hubtest.Start(t, server, "--auth", "jwt", "--jwt-secret-file", hubtest.SecretFile(t, secret), "--allow-origin", allowed)
	hub := at(h, "hub.app")
	login := browser.Open(t, hub+"/livez")
	login.Run(fmt.Sprintf("document.cookie = 'usercast=%s; path=/; SameSite=Lax'", hubtest.Token(t, secret, jwt.MapClaims{"sub": "42", "exp": time.Now().Add(time.Hour).Unix()})))

	attacks := []string{
		`new EventSource(url)`,
		`new EventSource(url, {withCredentials: true})`,
		`fetch(url, {credentials: "include"}).catch(() => {})`,
		`fetch(url, {credentials: "include", mode: "no-cors"}).catch(() => {})`,
		`new Image().src = url`,
		`document.body.append(Object.assign(document.createElement("script"), {src: url}))`,
		`document.body.append(Object.assign(document.createElement("iframe"), {src: url}))`,
		`document.body.append(Object.assign(document.createElement("object"), {data: url}))`,
		`document.head.append(Object.assign(document.createElement("link"), {rel: "stylesheet", href: url}))`,
		`{
			const form = Object.assign(document.createElement("form"), {action: url, method: "post", target: "frame"});
			document.body.append(Object.assign(document.createElement("iframe"), {name: "frame"}), form);
			form.submit();
		}`,
		`location = url`, // last, because it leaves the page
	}
	rejected := uint64(0)
	for _, site := range []string{"evil.app", "evil.other"} {
		p := browser.Open(t, at(page, site)+"/livez")
		p.Run(fmt.Sprintf("window.url = %q", hub+"/events"))
		for _, attack := range attacks {
			p.Run(attack)
			rejected++
			hubtest.Eventually(t, site+" is rejected: "+attack, func() bool { return h.StreamStats().Rejects["origin"] == rejected })
		}
	}
	if n := h.Hub().Stats().Connects; n != 0 {
		t.Errorf("%d streams were opened", n)
	}

	// The cookie is valid for pages of allowed origins.
	for _, origin := range []string{hub, allowed} {
		p := browsertest.OpenEventSource(t, browser, origin, hub+"/events")
		p.Until("es.readyState == 1")
		app.Publish(t, "user-42", "hello")
		p.WantReceived("message hello")
	}
}
