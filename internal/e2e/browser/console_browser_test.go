package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"usercast/hub"
	"usercast/internal/browsertest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/transport/redis"
)

// A consoleTab is an operator's tab and the messages in its browser console.
type consoleTab struct {
	*browsertest.Page
	t       *testing.T
	console *browsertest.Console
}

func openConsole(t *testing.T, browser *browsertest.Browser, url string) consoleTab {
	t.Helper()
	p := consoleTab{Page: browser.Open(t, "about:blank"), t: t}
	p.console = p.Watch()
	p.Do(chromedp.Navigate(url))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("browser console: %s\n%s", p.console.Messages(), p.Text("document.body.innerText"))
		}
	})
	return p
}

// waitForText waits until the node with that ID contains a text.
func (p consoleTab) waitForText(id, text string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("document.getElementById(%q).innerText.includes(%q)", id, text))
}

func (p consoleTab) press(keys string) {
	p.t.Helper()
	p.Do(chromedp.KeyEvent(keys))
}

// tabTo presses Tab until the node with that ID has the focus, and checks that the focus is visible.
func (p consoleTab) tabTo(id string) {
	p.t.Helper()
	for range 30 {
		p.press(kb.Tab)
		if p.Text("document.activeElement.id") == id {
			if p.Text("getComputedStyle(document.activeElement).outlineStyle") == "none" {
				p.t.Errorf("the focus on %s is not visible", id)
			}
			return
		}
	}
	p.t.Fatalf("%s is not reachable with the keyboard", id)
}

// wantQuiet checks that the browser console contains only expected messages, and that the page sent no
// requests to other servers.
func (p consoleTab) wantQuiet(expected ...string) {
	p.t.Helper()
	for _, line := range p.console.Messages() {
		if !slices.ContainsFunc(expected, func(e string) bool { return strings.Contains(line, e) }) {
			p.t.Errorf("browser console: %q", line)
		}
	}
	var requested []string
	if err := json.Unmarshal([]byte(p.Text(`JSON.stringify(performance.getEntriesByType("resource").map(e => e.name))`)), &requested); err != nil {
		p.t.Fatal(err)
	}
	for _, url := range requested {
		if !strings.HasPrefix(url, p.Text("location.origin")+"/api/") && !strings.HasPrefix(url, "data:") {
			p.t.Errorf("the page requested %s", url)
		}
	}
}

// Looks up a user as an operator does, with only the keyboard.
func consoleShowsUsers(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--console-tail", "--drain-delay", "2s", "--drain", "0")
	app := hubtest.NewPublisher(t, server.Addr())
	stream, other := h.Open(t, "user=a%2Fb&topic=activity&topic="), h.Open(t, "user=7")
	p := openConsole(t, browser, h.AdminURL("/"))
	p.waitForText("state", "live")
	p.waitForText("chart-streams", "2")

	// Messages update the counters and charts.
	for range 20 {
		app.Publish(t, "user-a/b:activity", "hello")
		stream.Want(t, "hello")
	}
	app.Publish(t, "user-nobody", "hello")
	p.Until(`document.getElementById("feeds-rows").rows[0].cells[2].innerText == "21" && document.getElementById("feeds-rows").rows[0].cells[4].innerText == "1"`)
	p.waitForText("chart-latency", "µs")
	p.Until(`document.querySelector("#chart-streams canvas").width > 200`)

	if p.Text(`document.getElementById("lookup-kind").hidden`) != "true" {
		t.Error("the page offers groups, which are disabled")
	}
	p.waitForText("figure-groups", "disabled")
	p.tabTo("lookup-user")
	p.press("a/b" + kb.Enter)
	p.waitForText("user-count", "1 open stream on this hub")
	p.waitForText("user-rows", string(h.Hub().AppendID(nil, h.Hub().ClientsOf(hub.User("a/b"))[0].State().LastID)))
	p.waitForText("user-rows", "(no topic), activity")
	if got := p.Text("location.hash"); got != "#user=a%2Fb" {
		t.Errorf("the fragment of the URL is %s", got)
	}

	// The tail is not a stream of the user.
	p.tabTo("tail-start")
	p.press(kb.Enter)
	p.waitForText("tail-state", "following")
	const payload = `<img src=x onerror="document.title='broken out'">`
	app.Publish(t, "user-a/b:news", payload) // not in the stream's topic filter
	app.Publish(t, "user-*", "to all")
	other.Want(t, "to all")
	p.waitForText("tail-count", "2 messages")
	p.waitForText("tail-rows", payload)
	p.waitForText("tail-rows", "broadcast")
	if s := h.Hub().Stats(); s.Clients != 2 || s.FramesEnqueued != 22 {
		t.Errorf("with a tail: %d clients, %d frames", s.Clients, s.FramesEnqueued)
	}
	stream.Want(t, "to all")
	p.press(kb.Enter)
	p.Until(`document.getElementById("tail-start").innerText == "Follow messages"`)
	if n := len(h.Log.Lines("tail opened", "user=a/b")); n != 1 {
		t.Errorf("%d log lines about an opened tail, want 1", n)
	}
	if strings.Contains(h.Log.String(), "onerror") {
		t.Error("a payload is in the log")
	}

	p.tabTo("pause")
	p.press(kb.Enter)
	p.waitForText("pause", "Resume")
	p.waitForText("state", "paused")
	p.press(kb.Enter)
	p.waitForText("pause", "Pause")
	p.waitForText("state", "live")

	// Disconnecting a user requires confirmation.
	nodes := p.Accessible()
	if roles := browsertest.Unnamed(nodes); roles != nil {
		t.Errorf("roles without an accessible name: %s", roles)
	}
	for _, want := range []browsertest.Node{
		{Role: "banner"}, {Role: "main"}, {Role: "search"}, {Role: "heading", Name: "usercast console"}, {Role: "textbox", Name: "Look up a user"},
		{Role: "region", Name: "User a/b"}, {Role: "button", Name: "Disconnect…"}, {Role: "figure"}, {Role: "status"},
	} {
		if !slices.ContainsFunc(nodes, func(n browsertest.Node) bool {
			return n.Role == want.Role && (want.Name == "" || n.Name == want.Name)
		}) {
			t.Errorf("no accessible %s %q", want.Role, want.Name)
		}
	}
	disconnect := func(yes bool) {
		p.Run(`document.getElementById("user-disconnect").focus()`)
		p.press(kb.Enter)
		p.Until(`document.getElementById("confirm").open`)
		if roles := browsertest.Unnamed(p.Accessible()); roles != nil {
			t.Errorf("roles in the dialog without an accessible name: %s", roles)
		}
		if yes {
			p.tabTo("confirm-yes")
			p.press(kb.Enter)
		} else {
			p.press(kb.Escape)
		}
		p.Until(`!document.getElementById("confirm").open`)
	}
	disconnect(false)
	if n := h.Hub().Stats().Clients; n != 2 {
		t.Errorf("%d streams after canceling the dialog, want 2", n)
	}
	disconnect(true)
	stream.WantEvent(t, "bye", `{"reason":"kicked"}`)
	p.waitForText("user-result", "Command sent to 1 hub, which closes this user's streams.")
	p.waitForText("user-count", "no open streams on this hub")
	p.Until(`[...document.getElementById("disconnects-rows").rows].some(r => r.innerText.includes("kicked") && r.cells[2].innerText == "1")`)
	p.wantQuiet()
	h.Terminate() // SIGTERM
	p.waitForText("banners", "The hub is shutting down")
}

// Looks up a group, and follows the links between its streams and those of a user.
func consoleShowsGroups(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--console-tail", "--group-prefix", "group-", "--presence")
	h.Open(t, "user=42&group=a&group=b%2F7&topic=news")
	h.Open(t, "user=%3Cb%3E&group=b%2F7")
	h.Open(t, "user=7")
	p := openConsole(t, browser, h.AdminURL("/"))
	p.waitForText("figure-groups", "2")
	p.waitForText("fleet-count", "1 hub, 3 users online")

	p.tabTo("lookup-kind")
	p.press("g" + kb.Tab + "b/7" + kb.Enter)
	p.waitForText("user-title", "Group b/7")
	p.waitForText("user-count", "2 open streams on this hub")
	if got := p.Text("location.hash"); got != "#group=b%2F7" {
		t.Errorf("the fragment of the URL is %s", got)
	}
	const cells = `[...document.getElementById("user-rows").rows].map(r => [...r.cells].map(c => c.dataset.label + "=" + c.innerText).filter(c => !/^(Age|Last id)=/.test(c)).join(" ")).join("; ")`
	if got, want := p.Text(cells), "User=42 Topics=news Groups=a, b/7 Queue=empty; User=<b> Topics=all Groups=b/7 Queue=empty"; got != want {
		t.Errorf("the streams are %s, want %s", got, want)
	}
	if got, want := p.Text(`document.getElementById("user-head").innerText.replaceAll("\t", " ")`), "User Age Topics Groups Queue Last id"; got != want {
		t.Errorf("the columns are %s, want %s", got, want)
	}
	if p.Text(`document.getElementById("user-buttons").hidden`) != "true" {
		t.Error("the page offers to disconnect a group")
	}
	p.Run(`document.getElementById("tail-start").click()`)
	p.waitForText("tail-state", "following")
	app := hubtest.NewPublisher(t, server.Addr())
	app.Publish(t, "group-a", "for another group")
	app.Publish(t, "user-42", "for a member only")
	app.Publish(t, "group-b/7:news", "for the group")
	p.waitForText("tail-count", "1 message")
	p.waitForText("tail-rows", "for the group")
	if n := len(h.Log.Lines("tail opened", "group=b/7")); n != 1 {
		t.Errorf("%d log lines about an opened tail, want 1", n)
	}
	if roles := browsertest.Unnamed(p.Accessible()); roles != nil {
		t.Errorf("roles without an accessible name: %s", roles)
	}
	// The table is updated while a link has the focus.
	p.Run(`[...document.querySelectorAll("#user-rows a")].find(a => a.innerText == "42").focus()`)
	h.Open(t, "user=8&group=b%2F7")
	p.waitForText("user-count", "3 open streams on this hub")
	if got := p.Text(`document.activeElement.innerText`); got != "42" {
		t.Errorf("the focus is on %q", got)
	}
	p.press(kb.Enter)
	p.waitForText("user-title", "User 42")
	p.waitForText("user-count", "1 open stream on this hub")
	if got, want := p.Text(cells), "Topics=news Groups=a, b/7 Queue=empty"; got != want {
		t.Errorf("the streams of the user are %s, want %s", got, want)
	}
	if got := p.Text(`document.getElementById("lookup-kind").value`); got != "user" {
		t.Errorf("the look-up is for a %s", got)
	}
	p.Run(`[...document.querySelectorAll("#user-rows a")].find(a => a.innerText == "a").click()`)
	p.waitForText("user-title", "Group a")
	p.waitForText("user-count", "1 open stream on this hub")
	p.Do(chromedp.EmulateViewport(320, 640))
	if got := p.Text(`document.documentElement.scrollWidth`); got != "320" {
		t.Errorf("the page is %s px wide on a screen of 320 px", got)
	}
	p.wantQuiet()
}

// The response of a closed panel is ignored, and a panel that is opened twice is updated only once.
func consoleRequestsEachLookupOnce(t *testing.T, browser *browsertest.Browser) {
	h := hubtest.Start(t, redistest.Start(t))
	h.Open(t, "user=42")
	p := openConsole(t, browser, h.AdminURL("/"))
	p.Run(`
		const ask = fetch, start = setTimeout, cancel = clearTimeout;
		window.held = []; // requests about users
		window.settled = 0; // responses that the page has handled
		window.updates = new Set(); // timers for the next request
		window.fetch = (path, ...rest) => !path.startsWith("api/users/") ? ask(path, ...rest) : new Promise(done => {
			held.push(async () => {
				const answer = await ask(path, ...rest), json = answer.json.bind(answer);
				answer.json = () => json().finally(() => start(() => settled++, 0));
				done(answer);
			});
		});
		window.setTimeout = (f, ms, ...rest) => {
			const id = start(() => { updates.delete(id); f(...rest); }, ms);
			if (ms === 2000) updates.add(id);
			return id;
		};
		window.clearTimeout = id => { updates.delete(id); cancel(id); };
		window.lookUp = () => {
			document.getElementById("lookup-user").value = "42";
			document.getElementById("lookup").requestSubmit();
		};`)
	p.Run(`lookUp()`)
	p.Until(`held.length === 1`)
	p.Run(`document.getElementById("user-close").click(); held.pop()()`)
	p.Until(`settled === 1`)
	if got := p.Text("`${updates.size} ${document.getElementById(\"user-rows\").rows.length}`"); got != "0 0" {
		t.Errorf("after the panel was closed, it has updates and rows: %s", got)
	}
	p.Run(`lookUp()`)
	p.Until(`held.length === 1`)
	p.Run(`lookUp()`)
	p.Until(`held.length === 2`)
	p.Run(`held.pop()(); held.pop()()`)
	p.Until(`settled === 3`)
	p.waitForText("user-count", "1 open stream on this hub")
	if got := p.Text(`updates.size + held.length`); got != "1" {
		t.Errorf("a panel that was opened twice has %s updates", got)
	}

	// A confirmation is for the user that it names. The address can change meanwhile: the Back button is not blocked.
	p.Run(`document.getElementById("user-disconnect").click()`)
	p.Until(`document.getElementById("confirm").open`)
	p.Run(`location.hash = "user=7"`)
	p.waitForText("user-title", "User 7")
	if p.Text(`document.getElementById("confirm").open`) != "false" {
		t.Error("the confirmation for another user is open")
	}
	p.wantQuiet()
}

// A link to a group, at a hub without groups, does not make the next lookup one of a group: the choice is hidden.
func consoleLooksUpUsersWithoutGroups(t *testing.T, browser *browsertest.Browser) {
	h := hubtest.Start(t, redistest.Start(t))
	h.Open(t, "user=42")
	p := openConsole(t, browser, h.AdminURL("/#group=team-7"))
	p.waitForText("user-count", "Rejected by the hub: groups are disabled")
	p.waitForText("figure-groups", "disabled")
	p.tabTo("lookup-user")
	p.Run(`document.getElementById("lookup-user").value = ""`)
	p.press("42" + kb.Enter)
	p.waitForText("user-title", "User 42")
	p.waitForText("user-count", "1 open stream on this hub")
}

// Two hubs, and markers of two others that differ from them.
func consoleShowsTheFleet(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	a := hubtest.Start(t, server, "--name", "hub-a")
	hubtest.Start(t, server, "--name", "hub-b")
	marker := func(name, run, pattern string) string {
		return fmt.Sprintf(`{"op":"marker","v":1,"id":"abcdefghijklm","from":"%s.1","run":%q,"patterns":[%q],"hub":{"name":%[1]q,"version":"v9.8.7","streams":12345,"users":678}}`, name, run, pattern)
	}
	info, _ := server.Do("info", "server").(string)
	_, run, _ := strings.Cut(info, "run_id:")
	run, _, _ = strings.Cut(run, "\r\n")
	p := openConsole(t, browser, a.AdminURL("/"))
	p.waitForText("fleet-rows", "hub-b")
	p.Until(`[...document.getElementById("fleet-rows").rows].every(r => r.cells[4].innerText.endsWith("s ago"))`)
	p.waitForText("fleet-count", "2 hubs")
	if got := p.Text(`document.getElementById("fleet-notes").innerText`); got != "" {
		t.Errorf("notes about two equal hubs: %s", got)
	}
	server.Do("publish", redis.ControlChannel("user-"), marker("hub-c", run, "app-*"))
	server.Do("publish", redis.ControlChannel("user-"), marker("hub-<d>", "another", "user-*"))
	p.waitForText("fleet-count", "4 hubs")
	const names = `[...document.getElementById("fleet-rows").rows].map(r => [...r.cells[0].childNodes].map(n => n.textContent).join("|")).join("; ")`
	if got, want := p.Text(names), "hub-<d>|other version|other Redis server; hub-a|this hub; hub-b; hub-c|other version|other channels"; got != want {
		t.Errorf("the hubs are %s, want %s", got, want)
	}
	p.waitForText("fleet-rows", "12,345")
	p.waitForText("fleet-notes", "a page that moves between them refetches its state")
	p.waitForText("fleet-notes", "Hubs of different versions work together")
	p.Do(chromedp.EmulateViewport(320, 640))
	if got := p.Text(`document.documentElement.scrollWidth`); got != "320" {
		t.Errorf("the page is %s px wide on a screen of 320 px", got)
	}
	if roles := browsertest.Unnamed(p.Accessible()); roles != nil {
		t.Errorf("roles without an accessible name: %s", roles)
	}
	p.wantQuiet()

	hidden := hubtest.Start(t, server, "--feed", "stream")
	p = openConsole(t, browser, hidden.AdminURL("/"))
	p.waitForText("fleet-notes", "The fleet is not visible: with --feed stream, hubs do not write markers.")
	p.wantQuiet()
}

func consoleFitsAPhone(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	h.Open(t, "user="+strings.Repeat("long", 50)+"&topic="+strings.Repeat("topic", 30))
	p := openConsole(t, browser, "about:blank")
	p.Do(chromedp.EmulateViewport(320, 640), chromedp.Navigate(h.AdminURL("/#user="+strings.Repeat("long", 50))))
	p.waitForText("user-count", "1 open stream")
	p.waitForText("tail-off", "--console-tail")
	if p.Text(`document.getElementById("tail-on").hidden`) != "true" {
		t.Error("the page offers a tail although the hub does not allow it")
	}
	p.Until(`document.getElementById("gaps-rows").rows.length == 6`)
	if got := p.Text(`document.documentElement.scrollWidth`); got != "320" {
		t.Errorf("the page is %s px wide on a screen of 320 px: %s", got,
			p.Text(`[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > 321).map(e => e.tagName + "#" + e.id + "." + e.className).join(" ")`))
	}
	p.wantQuiet()
}

func consoleRecoversFromFailures(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	private := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))
	first, _, _ := hubtest.Serve(t, server, nil, "--admin-listen", private)
	p := openConsole(t, browser, "http://"+private+"/")
	p.waitForText("state", "live")

	server.Kill()
	p.waitForText("banners", "Redis "+server.Addr()+" is unavailable")
	server.Restart()
	p.Until(`document.getElementById("banners").childElementCount == 0`)
	p.waitForText("announce", "All problems are resolved.")

	first.Signal(syscall.SIGKILL)
	first.Wait(t)
	p.waitForText("banners", "Connection to the hub lost")
	p.waitForText("state", "disconnected")
	hubtest.Serve(t, server, nil, "--admin-listen", private)
	p.waitForText("state", "live")
	p.Until(`document.getElementById("banners").childElementCount == 0`)
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "hello")
	p.Until(`document.getElementById("feeds-rows").rows[0].cells[2].innerText == "1"`) // the new hub counts from zero
	p.wantQuiet("net::ERR_")
}

func consolePromptsForTheToken(t *testing.T, browser *browsertest.Browser) {
	server := redistest.Start(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("correct-horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := hubtest.Start(t, server, "--admin-token-file", file)
	h.Open(t, "user=42")
	p := openConsole(t, browser, h.AdminURL("/"))
	const view = "document.body?.dataset.view"
	p.Until(view + ` == "signin" && document.activeElement.id == "signin-token"`)
	if roles := browsertest.Unnamed(p.Accessible()); roles != nil {
		t.Errorf("roles without an accessible name: %s", roles)
	}
	for _, wrong := range []string{"wrong-horse", "naïve ✓"} {
		p.Run(fmt.Sprintf(`document.getElementById("signin-token").value = %q`, wrong))
		p.press(kb.Enter)
		p.waitForText("signin-wrong", "Invalid token")
	}
	p.press("correct-horse" + kb.Enter)
	p.Until(view + ` == "console"`)
	p.waitForText("state", "live")
	p.waitForText("chart-streams", "1")
	p.press("42" + kb.Enter) // the look-up field has the focus
	p.waitForText("user-count", "1 open stream")

	p.Do(chromedp.Reload())
	p.waitForText("user-count", "1 open stream") // the tab stores the token
	if p.Text("document.cookie") != "" || p.Text("localStorage.length") != "0" {
		t.Error("the token is stored outside the tab")
	}
	p.Run(`document.getElementById("signout").click()`)
	p.Until(view + ` == "signin" && document.readyState == "complete"`)
	if p.Text("sessionStorage.length") != "0" || p.Text(`document.getElementById("user-rows").childElementCount`) != "0" {
		t.Error("data is left after signing out")
	}
	p.wantQuiet("status of 401")
}
