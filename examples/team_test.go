package examples

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"usercast/internal/browsertest"
	"usercast/internal/doctest"
	"usercast/internal/need"
)

// TestTeamExamples runs the apps with groups and presence. They send a message to a team, show which of its members are
// online, and send a push to those that are offline.
func TestTeamExamples(t *testing.T) {
	runExamples(t, "team/*/README.md", 2, tryTeam)
}

// TestPresencePageShowsTheTeamExamples checks that the code of the page is that of the apps.
func TestPresencePageShowsTheTeamExamples(t *testing.T) {
	const page = "../docs/presence.md"
	js, python := filesOf(t, page, "js"), filesOf(t, page, "python")
	for _, name := range []string{"server.js, online", "server.js, presence"} {
		wantInFile(t, page, shown(t, js, name), "team/node/server.js")
	}
	wantInFile(t, page, shown(t, python, "app.py, online"), "team/python/app.py")
}

func tryTeam(t *testing.T, s *doctest.Session) {
	ada, eve, bob, zoe := newBrowser(t, s), newBrowser(t, s), newBrowser(t, s), newBrowser(t, s)
	if answer := ada.ask("GET", ada.hub+"/events", nil); answer.StatusCode != 401 {
		t.Errorf("a stream before logging in: %s, want 401", answer.Status)
	}
	if answer := ada.post("/login", "name", "ada", "team", "red:x"); answer.StatusCode != 400 {
		t.Errorf("an invalid team: %s, want 400", answer.Status)
	}
	if answer := ada.post("/login", "team", "red"); answer.StatusCode != 400 {
		t.Errorf("no name: %s, want 400", answer.Status)
	}
	for b, name := range map[*browser]string{ada: "ada", eve: "eve", zoe: "zoe"} {
		b.post("/login", "name", name, "team", "red")
	}
	bob.post("/login", "name", "bob", "team", "blue")
	for _, b := range []*browser{ada, eve, bob} {
		b.hub = s.PublicURL()
	}

	// The members of the team receive a change when a user comes online.
	adas := ada.openWith("?event=topic")
	wantPresence(adas, "ada", true)
	eves := eve.openWith("?event=topic")
	wantPresence(eves, "eve", true)
	wantPresence(adas, "eve", true)
	bobs := bob.openWith("?event=topic")
	wantPresence(bobs, "bob", true)
	ada.wantTeam("ada+ eve+ zoe-")
	bob.wantTeam("bob+")

	// A message reaches the members of the team, and no others. Members that are offline get a push.
	eve.post("/messages", "text", "hello")
	adas.want(`"eve"`, `"hello"`)
	eves.want(`"eve"`, `"hello"`)
	s.AwaitApp("push to zoe: eve: hello\n")
	bob.post("/messages", "text", "only blue")
	bobs.want(`"only blue"`)
	if strings.Contains(s.AppOutput(), "push to ada") || strings.Contains(s.AppOutput(), "push to bob") {
		t.Errorf("a user that is online received a push:\n%s", s.AppOutput())
	}
	if strings.Contains(s.AppOutput(), "usercast:") { // the only member of a team has sent a message
		t.Errorf("the app has logged an error:\n%s", s.AppOutput())
	}

	// A user moves to another team while a stream is open.
	bob.post("/login", "name", "bob", "team", "red")
	bobs.want(`{"reason":"kicked"}`)
	bobs.WantEnd(t)
	bobs = bob.openWith("?event=topic&last-event-id=" + bobs.LastID)
	ada.post("/messages", "text", "welcome")
	bobs.want(`"welcome"`)
	adas.want(`"welcome"`)
	eves.want(`"welcome"`)

	// A member goes offline. The hubs would report it up to 40 s later; the test does it instead.
	eve.post("/logout")
	eves.want(`{"reason":"kicked"}`)
	eves.WantEnd(t)
	s.Redis.Do("zrem", "usercast:user-online", "eve")
	s.Redis.Do("publish", "usercast:user-presence", `{"user":"eve","online":false}`)
	wantPresence(adas, "eve", false)
	ada.wantTeam("ada+ bob+ eve- zoe-")
	ada.post("/messages", "text", "good night")
	s.AwaitApp("push to eve: ada: good night\n")
	adas.want(`"good night"`)

	// If the app's subscription breaks, the pages load the team again.
	for client := range strings.Lines(s.Redis.Do("client", "list").(string)) {
		if strings.Contains(client, " sub=1 psub=0 ") {
			s.Redis.Do("client", "kill", "id", strings.TrimPrefix(strings.Fields(client)[0], "id="))
		}
	}
	if e, err := adas.Next(); err != nil || e.Type != "presence" || !strings.Contains(e.Data, `"reload"`) {
		t.Errorf("after the app's subscription broke, the page received %+v, %v", e, err)
	}

	// Without Redis, the app responds, and sends a push to every member.
	s.Redis.Freeze()
	ada.wantSoon("/messages", []int{503}, "text", "Redis does not answer")
	s.Redis.Thaw()
	s.AwaitApp("push to bob: ada: Redis does not answer\n")
	s.Redis.Kill()
	ada.wantSoon("/messages", []int{503}, "text", "Redis is down")
	s.AwaitApp("push to bob: ada: Redis is down\n")
	s.Redis.Restart()
	adas.wantGap()
}

// TestTeamPageInChromium uses the page of the team chat as a user does.
func TestTeamPageInChromium(t *testing.T) {
	t.Parallel()
	need.Program(t, "redis-server")
	needLanguage(t, "python")
	dir := copyOf(t, "team/python")
	s := doctest.NewSession(t, dir, environment["python"]...)
	edit(t, dir+"/page.html", func(text string) string {
		return strings.Replace(text, ":8080", strings.TrimPrefix(s.PublicURL(), "http://127.0.0.1"), 1)
	})
	for _, b := range doctest.Read(t, "team/python/README.md").Blocks {
		if b.Mark == "run: app" || b.Mark == "run: hub" {
			s.Do(b)
		}
	}
	eve := newBrowser(t, s)
	eve.post("/login", "name", "eve", "team", "red")

	ada := browsertest.Start(t).Open(t, s.AppURL()+"/")
	ada.Until(`!document.getElementById("login").hidden`)
	// The test decides when the page loads the team for the second time after a gap.
	ada.Run(`
		const start = window.setTimeout;
		window.setTimeout = (f, ms, ...args) => ms === 5000 ? (window.loadAgain = f, 0) : start(f, ms, ...args);`)
	ada.Run(`
		const login = document.getElementById("login");
		login.elements.name.value = "ada";
		login.elements.team.value = "red";
		login.requestSubmit();`)
	const members = `[...document.querySelectorAll("#members li")].map(li => li.textContent + " " + li.title).join()`
	ada.Until(members + ` === "ada online,eve offline"`)
	if unnamed := browsertest.Unnamed(ada.Accessible()); len(unnamed) > 0 {
		t.Errorf("without a name for screen readers: %q", unnamed)
	}

	eves := eve.openWith("?event=topic")
	ada.Until(members + ` === "ada online,eve online"`)
	ada.Run(`
		document.querySelector("#send [name=text]").value = "<b>hello</b>";
		document.getElementById("send").requestSubmit();`)
	const messages = `document.getElementById("messages").textContent`
	ada.Until(messages + ` === "ada: <b>hello</b>"`)
	wantPresence(eves, "eve", true)
	eves.want(`"ada"`, `"<b>hello</b>"`)
	eve.post("/messages", "text", "hi")
	ada.Until(messages + ` === "eve: hiada: <b>hello</b>"`)

	// After an outage of Redis, the page loads the list while the leases have ended. That they are extended is not published.
	lapse := func(score string) { s.Redis.Do("zadd", "usercast:user-online", score, "ada", score, "eve") }
	lapse("1") // before the page loads the list
	stop := make(chan struct{})
	lapsing := make(chan struct{})
	go func() {
		defer close(lapsing)
		for { // the hub extends the leases meanwhile
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				lapse("1")
			}
		}
	}()
	s.Redis.Do("publish", "group-team-red:presence", `{"reload":true}`)
	ada.Until(members + ` === "ada offline,eve offline"`)
	close(stop)
	<-lapsing
	lapse("9999999999")
	ada.Run(`loadAgain()`)
	ada.Until(members + ` === "ada online,eve online"`)

	// Another page of the user moves to another team. This page reconnects, and shows that team.
	newBrowser(t, s).post("/login", "name", "ada", "team", "blue")
	ada.Until(`document.getElementById("state").textContent === "connected, team blue"`)
	ada.Until(members + ` === "ada online"`)
}

// wantPresence checks that the next event of a stream, apart from requests to load the team, is a change of presence.
func wantPresence(s stream, user string, online bool) {
	s.t.Helper()
	for {
		e, err := s.Next()
		if err != nil {
			s.t.Fatalf("waiting for the presence of %s: %v", user, err)
		}
		var change struct {
			User           string
			Online, Reload bool
		}
		if err := json.Unmarshal([]byte(e.Data), &change); err != nil {
			s.t.Fatalf("%q: %v", e.Data, err)
		}
		if change.Reload {
			continue
		}
		if e.Type != "presence" || change.User != user || change.Online != online {
			s.t.Fatalf("received %+v, want the presence of %s: %v", e, user, online)
		}
		return
	}
}

// wantTeam checks the members of the browser's team: + is online, - is offline.
func (b *browser) wantTeam(want string) {
	b.t.Helper()
	answer := b.request("GET", b.s.AppURL()+"/team", nil)
	defer answer.Body.Close()
	var team struct {
		Members []struct {
			Name   string
			Online bool
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&team); err != nil {
		b.t.Fatalf("GET /team: %s: %v", answer.Status, err)
	}
	var got []string
	for _, m := range team.Members {
		got = append(got, m.Name+map[bool]string{true: "+", false: "-"}[m.Online])
	}
	if !reflect.DeepEqual(got, strings.Fields(want)) {
		b.t.Errorf("the team is %q, want %s", got, want)
	}
}
