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

// What a real browser does with a hub. All tests share one browser: starting it
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
		"page receives what its user gets":                   pageReceives,
		"page survives a killed hub":                         pageSurvivesKilledHub,
		"page hears of a killed Redis":                       pageHearsOfKilledRedis,
		"page that is told busy comes back":                  pageToldBusyComesBack,
		"page that is told bye comes back":                   pageToldByeComesBack,
		"page that comes back in time has missed nothing":    pageComesBackInTime,
		"page of a stopping hub moves on to the next":        pageOfStoppingHubMovesOn,
		"page of an error status is closed for good":         pageOfErrorStatusIsClosed,
		"page of another origin is let in when it is listed": pageOfAnotherOrigin,
		"page of another site has no use of the cookie":      pageOfAnotherSite,
	}, true)
	// The keyboard belongs to one tab.
	run(map[string]func(*testing.T, *browsertest.Browser){
		"console shows users and lets one be disconnected": consoleShowsUsers,
		"console fits a phone":                             consoleFitsAPhone,
		"console outlives faults":                          consoleOutlivesFaults,
		"console asks for the token":                       consoleAsksForTheToken,
	}, false)
}

func pageReceives(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--ping-interval", "300ms")
	app := hubtest.NewPublisher(t, server.Addr())
	all := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42")
	named := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42&event=topic&topic=activity&topic=gap")
	stranger := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=7")
	for _, p := range []browsertest.EventSource{all, named, stranger} {
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
	stranger.WantReceived("message to all")

	// Pings and opening blocks fire nothing unless the page listens for them.
	pinged := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42&ping=event")
	pinged.Until("fired.length >= 2 && fired.every(e => e.name == 'ping' && e.data == '{}')")
	if got := len(all.Received(6)); got != 6 {
		t.Errorf("the page heard %d events, want 6", got)
	}
	// A closed tab is gone at once.
	pinged.Run("es.close()")
	hubtest.Within(t, hubtest.Soon, "the closed stream is gone", func() bool { return h.Hub().Stats().Clients == 3 })
}

func pageSurvivesKilledHub(t *testing.T, browser *browsertest.Browser) {
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
	p.Until("errors.length >= 3") // it is refused again and again, and goes on
	app.Publish(t, "user-42", "missed")
	hubtest.Serve(t, server, nil, "--listen", listen, "--retry", "200ms")
	p.Until("opens == 2")
	if got := p.Received(2)[1]; got != `gap {"reason":"unknown-id"}` {
		t.Errorf("the page heard %q", got)
	}
	app.Publish(t, "user-42", "after")
	p.Until("fired.at(-1).data == 'after'")
	// It may have come before the hub had subscribed, and then is told of that, too.
	got := slices.DeleteFunc(p.Received(3), func(e string) bool { return e == `gap {"reason":"redis-reconnect"}` })
	if want := []string{"message before", `gap {"reason":"unknown-id"}`, "message after"}; !slices.Equal(got, want) {
		t.Errorf("the page heard %q, want %q", got, want)
	}
	p.WantAlive()
}

func pageHearsOfKilledRedis(t *testing.T, browser *browsertest.Browser) {
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
		t.Errorf("the page noticed more than the gap: opens and errors are %s", got)
	}
}

func pageToldBusyComesBack(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--max-clients", "1", "--retry", "50ms")
	occupant := h.Open(t, "user=7")
	p := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42")
	p.Until("fired.filter(e => e.name == 'busy').length >= 3")
	p.WantAlive()
	if got := p.Received(3)[0]; got != `busy {"reason":"clients"}` {
		t.Errorf("the page heard %s", got)
	}
	occupant.Close()
	hubtest.Eventually(t, "the page has got in", func() bool {
		s := h.Hub().Stats()
		return s.Clients == 1 && s.Connects == 2
	})
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "hello")
	p.Until("fired.at(-1).name == 'message' && fired.at(-1).data == 'hello'")
	p.WantAlive()
}

func pageToldByeComesBack(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--max-age", "500ms", "--retry", "50ms")
	p := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42")
	p.Until("opens >= 3")
	p.WantAlive()
	// Nothing has happened meanwhile: no gap.
	for _, e := range p.Received(2) {
		if e != `bye {"reason":"max_age"}` {
			t.Errorf("the page heard %s", e)
		}
	}
}

// Another user's messages move the position on; a page that has kept up with it
// by pings has nothing to fetch anew.
func pageComesBackInTime(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--ping-interval", "100ms", "--max-age", "2s", "--retry", "50ms")
	p := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events?user=42")
	p.Until("opens >= 1")
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-7", "for somebody else")
	p.Until("opens >= 2")
	p.WantReceived(`bye {"reason":"max_age"}`)
}

// A deploy: the hub ends in good order, and the next one takes over its port.
func pageOfStoppingHubMovesOn(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	listen := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))
	flags := []string{"--listen", listen, "--retry", "100ms", "--drain-delay", "1s", "--drain", "100ms"}
	first, _, _ := hubtest.Serve(t, server, nil, flags...)
	p := browsertest.OpenEventSource(t, browser, "http://"+listen, "/events?user=42")
	p.Until("es.readyState == 1")
	newcomer := browsertest.EventSource{Page: browser.Open(t, "http://"+listen+"/livez")} // a tab takes longer to open than the hub to drain
	newcomer.Run(browsertest.EventSourceScript)
	first.Signal(syscall.SIGTERM)
	hubtest.Eventually(t, "the hub drains", func() bool { return len(first.Stderr.Lines("msg=stopping")) == 1 })
	newcomer.Run("listen('/events?user=42')")
	newcomer.Until("fired.length > 0 && fired[0].name == 'busy' && fired[0].data == '{\"reason\":\"draining\"}'")
	p.WantReceived(`bye {"reason":"draining"}`)
	if code := first.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	hubtest.Serve(t, server, nil, flags...)
	app := hubtest.NewPublisher(t, server.Addr())
	for _, p := range []browsertest.EventSource{p, newcomer} {
		p.Until("es.readyState == 1")
		p.WantAlive()
	}
	app.Publish(t, "user-*", "from the next")
	for _, p := range []browsertest.EventSource{p, newcomer} {
		p.Until("fired.at(-1).data == 'from the next'")
	}
}

// The rule that the answers are made for: any status but 200 ends an EventSource.
func pageOfErrorStatusIsClosed(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	p := browsertest.OpenEventSource(t, browser, h.PublicURL(""), "/events") // nobody
	p.Until("es.readyState == 2")
	if n := h.StreamStats().Rejects["unauthorized"]; n != 1 {
		t.Errorf("%d requests were refused, want 1", n)
	}
}

func pageOfAnotherOrigin(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	page := hubtest.Start(t, server) // any page on another port will do
	listed := hubtest.Start(t, server, "--allow-origin", page.PublicURL(""))
	app := hubtest.NewPublisher(t, server.Addr())

	p := browsertest.OpenEventSource(t, browser, page.PublicURL(""), listed.PublicURL("/events?user=42"))
	p.Until("es.readyState == 1")
	if n := app.Publish(t, "user-42", "hello"); n != 2 {
		t.Errorf("%d hubs heard the message, want 2", n)
	}
	p.WantReceived("message hello")

	other := hubtest.Start(t, server)
	foreign := browsertest.OpenEventSource(t, browser, page.PublicURL(""), other.PublicURL("/events?user=42"))
	foreign.Until("es.readyState == 2")
	if n := other.StreamStats().Rejects["origin"]; n != 1 {
		t.Errorf("%d requests were refused for their origin, want 1", n)
	}
}

// A page elsewhere, of the same site (so that the browser sends the cookie) or not, opens no
// stream with what its visitor is logged in with.
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
	page := hubtest.Start(t, server) // whose /livez is the page
	friend := at(page, "friend.app")
	h := hubtest.Start(t, server, "--auth", "jwt", "--jwt-secret-file", hubtest.SecretFile(t, secret), "--allow-origin", friend)
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
		`location = url`, // the last: the page is gone
	}
	refused := uint64(0)
	for _, site := range []string{"evil.app", "evil.other"} {
		p := browser.Open(t, at(page, site)+"/livez")
		p.Run(fmt.Sprintf("window.url = %q", hub+"/events"))
		for _, attack := range attacks {
			p.Run(attack)
			refused++
			hubtest.Eventually(t, site+" is refused: "+attack, func() bool { return h.StreamStats().Rejects["origin"] == refused })
		}
	}
	if n := h.Hub().Stats().Connects; n != 0 {
		t.Errorf("%d streams were opened", n)
	}

	// The cookie is good: pages that may use it do.
	for _, origin := range []string{hub, friend} {
		p := browsertest.OpenEventSource(t, browser, origin, hub+"/events")
		p.Until("es.readyState == 1")
		app.Publish(t, "user-42", "hello")
		p.WantReceived("message hello")
	}
}
