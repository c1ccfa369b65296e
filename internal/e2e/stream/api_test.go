package stream

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"usercast/internal/app"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// forEachFeed runs a test with a hub of each feed.
func forEachFeed(t *testing.T, test func(t *testing.T, server *redistest.Server, feed string)) {
	for _, feed := range []string{app.FeedPubSub, app.FeedStream} {
		t.Run(feed, func(t *testing.T) {
			t.Parallel()
			test(t, redistest.Start(t), feed)
		})
	}
}

// post sends a body to the admin listener and returns the status and the response.
func post(t *testing.T, h *hubtest.Hub, path, body string, headers ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest("POST", h.AdminURL(path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := hubtest.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(answer))
}

// positionOf asks a hub for the position of a user.
func positionOf(t *testing.T, h *hubtest.Hub, user string) string {
	t.Helper()
	a := hubtest.Request(t, "GET", h.AdminURL("/api/users/"+user+"/position"))
	var position struct{ ID string }
	if err := json.Unmarshal([]byte(a.Body), &position); err != nil || a.Status != 200 || position.ID == "" {
		t.Fatalf("position: status %d %s", a.Status, a.Body)
	}
	return position.ID
}

// What is published between the position and the stream arrives, at the same hub and at another one.
func TestPageResumesFromAPosition(t *testing.T) {
	t.Parallel()
	forEachFeed(t, func(t *testing.T, server *redistest.Server, feed string) {
		one, two := hubtest.Start(t, server, "--feed", feed), hubtest.Start(t, server, "--feed", feed)
		one.AwaitReady(t)
		two.AwaitReady(t)
		post(t, one, "/api/users/42/messages", "before")
		receivedBy(t, 1, one, two)
		id := positionOf(t, one, "42")
		for _, path := range []string{"/api/users/42/messages", "/api/users/43/messages", "/api/users/*/messages", "/api/users/42/messages?topic=a"} {
			if status, answer := post(t, one, path, path); status != 200 {
				t.Fatalf("%s: status %d %s", path, status, answer)
			}
		}
		receivedBy(t, 5, one, two)
		for _, h := range []*hubtest.Hub{one, two} {
			page := h.Open(t, "user=42&last-event-id="+id)
			post(t, h, "/api/users/42/messages", "live")
			page.Want(t, "/api/users/42/messages", "/api/users/*/messages", "/api/users/42/messages?topic=a")
			if h == two {
				page.Want(t, "live")
			}
			page.Want(t, "live")
		}
	})
}

// receivedBy waits until hubs have received n messages.
func receivedBy(t *testing.T, n uint64, hubs ...*hubtest.Hub) {
	t.Helper()
	for _, h := range hubs {
		hubtest.Eventually(t, "the hub has received the messages", func() bool { return h.FeedStats()[0].Received >= n })
	}
}

// Users that stand for all users have no position.
func TestPositionRequiresOneUser(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, redistest.Start(t), "--broadcast-user", "all")
	for path, want := range map[string]string{"*": "all users", "all": "all users", "4:2": "':'", "%FF": "UTF-8"} {
		if a := hubtest.Request(t, "GET", h.AdminURL("/api/users/"+path+"/position")); a.Status != 400 || !strings.Contains(a.Body, want) {
			t.Errorf("%s: status %d %s", path, a.Status, a.Body)
		}
	}
}

// A hub without a subscription does not know what is published.
func TestPositionRequiresASubscription(t *testing.T) {
	t.Parallel()
	forEachFeed(t, func(t *testing.T, server *redistest.Server, feed string) {
		h := hubtest.Start(t, server, "--feed", feed)
		h.AwaitReady(t)
		positionOf(t, h, "42")
		server.Kill()
		hubtest.Eventually(t, "the outage is noticed", func() bool { return !h.FeedStats()[0].Connected })
		if a := hubtest.Request(t, "GET", h.AdminURL("/api/users/42/position")); a.Status != 503 || !strings.Contains(a.Body, "not connected to Redis") {
			t.Errorf("status %d %s", a.Status, a.Body)
		}
		server.Restart()
		hubtest.Eventually(t, "the hub has a position again", func() bool {
			return hubtest.Request(t, "GET", h.AdminURL("/api/users/42/position")).Status == 200
		})
	})
}

// A position waits for the first marker, because no other hub knows an earlier one. If no marker can come, only the first
// request waits.
func TestPositionWaitsForTheFirstMarker(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	publisher := hubtest.NewPublisher(t, server.Addr())
	publisher.Do(t, "ACL", "SETUSER", "mute", "on", ">secret", "+@all", "-publish", "~*", "&*")
	mute := hubtest.New(t, strings.Replace(server.URL(), "redis://", "redis://mute:secret@", 1))
	hubtest.Run(t, mute)
	mute.AwaitSubscription(t, 1)
	began := time.Now()
	id := positionOf(t, mute, "42")
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("the first position came after %v, without a marker", waited)
	}
	began = time.Now()
	for range 15 { // they would wait for 15 s
		positionOf(t, mute, "42")
	}
	if waited := time.Since(began); waited > 14*time.Second {
		t.Errorf("15 later positions came after %v", waited)
	}
	publisher.Publish(t, "user-42", "hello")
	mute.Open(t, "user=42&last-event-id="+id).Want(t, "hello") // valid at this hub

	// The marker of another hub ends the wait.
	other := hubtest.Start(t, server)
	other.AwaitReady(t)
	hubtest.Eventually(t, "the position is known to both", func() bool {
		return strings.SplitN(positionOf(t, mute, "42"), "-", 2)[0] == strings.SplitN(positionOf(t, other, "42"), "-", 2)[0]
	})
}

// With several Redis URLs there are no markers to wait for, and a position is valid at this hub.
func TestPositionWithSeveralRedis(t *testing.T) {
	t.Parallel()
	one, two := redistest.Start(t), redistest.Start(t)
	h := hubtest.Start(t, one, "--redis", two.URL())
	hubtest.Eventually(t, "the hub has subscribed to both", func() bool { return h.FeedStats()[0].Connected && h.FeedStats()[1].Connected })
	began := time.Now()
	id := ""
	for range 15 { // they would wait for 15 s
		id = positionOf(t, h, "42")
	}
	if waited := time.Since(began); waited > 14*time.Second {
		t.Errorf("15 positions came after %v", waited)
	}
	hubtest.NewPublisher(t, two.Addr()).Publish(t, "user-42", "hello")
	h.Open(t, "user=42&last-event-id="+id).Want(t, "hello")
}

func TestGroupsAPI(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--group-prefix", "group-")
	for _, test := range []struct {
		path string
		code int
		want string
	}{
		{"/api/groups/team-7/messages?topic=news", 200, `{"group":"team-7","heard":1}`},
		{"/api/groups/a%2Fb%25/messages", 200, `{"group":"a/b%","heard":1}`},
		{"/api/groups/4:2/messages", 400, "the group name must not be empty or contain ':', which separates group and topic"},
		{"/api/groups/*/messages", 400, "the group name * is reserved"},
		{"/api/groups//messages", 400, "empty"},
		{"/api/groups/%FF/messages", 400, "the group name is not valid UTF-8"},
	} {
		if code, answer := post(t, h, test.path, "x"); code != test.code || !strings.Contains(answer, test.want) {
			t.Errorf("%s: %d %s, want %d %s", test.path, code, answer, test.code, test.want)
		}
	}
	h.WantMetrics(t, map[string]float64{"usercast_messages_received_total": 2, "usercast_messages_unrouted_total": 2})
	if a := hubtest.Request(t, "GET", h.AdminURL("/api/groups/team-7")); a.Status != 200 || a.Body != `{"group":"team-7","streams":[],"total":0}`+"\n" {
		t.Errorf("a group without streams: status %d %s", a.Status, a.Body)
	}

	page := h.Open(t, "user=42&group=team-7&group=b&topic=news")
	if code, answer := post(t, h, "/api/groups/team-7/messages?topic=news", "to the team"); code != 200 {
		t.Errorf("status %d %s", code, answer)
	}
	page.Want(t, "to the team")
	for path, parts := range map[string][]string{
		"/api/groups/team-7": {`{"group":"team-7","streams":[{"user":"42","since":"`, `"topics":["news"],"groups":["b","team-7"]`, `],"total":1}`},
		"/api/users/42":      {`{"streams":[{"since":"`, `"topics":["news"],"groups":["b","team-7"]`, `],"user":"42"}`},
	} {
		a := hubtest.Request(t, "GET", h.AdminURL(path))
		for _, part := range parts {
			if a.Status != 200 || !strings.Contains(a.Body, part) {
				t.Errorf("%s: status %d %s, want %s", path, a.Status, a.Body, part)
			}
		}
	}

	off := hubtest.Start(t, server)
	for _, request := range []string{"GET /api/groups/team-7", "POST /api/groups/team-7/messages", "GET /api/groups/4:2"} {
		method, path, _ := strings.Cut(request, " ")
		if a := hubtest.Request(t, method, off.AdminURL(path)); a.Status != 404 || !strings.Contains(a.Body, "--group-prefix") {
			t.Errorf("%s without groups: status %d %s", request, a.Status, a.Body)
		}
	}
	if code, answer := post(t, off, "/api/messages", `{"group":"team-7","data":"x"}`); code != 404 || !strings.Contains(answer, "--group-prefix") {
		t.Errorf("a batch without groups: status %d %s", code, answer)
	}
}

func TestBatchIsPublishedInOrder(t *testing.T) {
	t.Parallel()
	forEachFeed(t, func(t *testing.T, server *redistest.Server, feed string) {
		h := hubtest.Start(t, server, "--feed", feed, "--group-prefix", "group-", "--queue", "5000")
		h.AwaitReady(t)
		page, other := h.Open(t, "user=42&event=topic"), h.Open(t, "user=4%2F3")
		code, answer := post(t, h, "/api/messages", strings.Join([]string{
			`{"user":"42","data":"one\ntwo"}`, "", "\t", `  {"data":{"kind": "comment" , "id":7},"topic":"news","user":"42"}  ` + "\r",
			`{"user":"*","topic":"a:b","data":""}`, `{"user":"4/3","data":null}`, `{"user":"42","data":12.0}`, `{"group":"team-7","data":[]}`, `{"user":"42","topic":null,"data":"\u00fc</b>"}`,
			`{"user":42,"data":"an integer"}`, `{"group":7,"data":"x"}`,
		}, "\n"))
		if code != 200 || answer != `{"published":9}` {
			t.Fatalf("status %d %s", code, answer)
		}
		page.Want(t, "one\ntwo")
		page.WantEvent(t, "news", `{"kind": "comment" , "id":7}`)
		page.WantEvent(t, "a:b", "")
		page.Want(t, "12.0", "ü</b>", "an integer")
		other.Want(t, "", "null")

		// More than one part of a pipeline, by number and by size.
		var lines strings.Builder
		for i := range 1000 {
			size := 10
			if i%200 == 0 {
				size = 300 << 10
			}
			fmt.Fprintf(&lines, `{"user":"4/3","data":"%d %s"}`+"\n", i, strings.Repeat("x", size))
		}
		if code, answer := post(t, h, "/api/messages", lines.String()); code != 200 || answer != `{"published":1000}` {
			t.Fatalf("status %d %s", code, answer)
		}
		for i := range 1000 {
			if e, err := other.Next(); err != nil || !strings.HasPrefix(e.Data, fmt.Sprintf("%d x", i)) {
				t.Fatalf("message %d is %.20q, %v", i, e.Data, err)
			}
		}
		if code, answer := post(t, h, "/api/messages", ""); code != 200 || answer != `{"published":0}` {
			t.Errorf("no messages: status %d %s", code, answer)
		}
	})
}

// A batch with an invalid line is not published at all.
func TestBatchIsCheckedFirst(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--group-prefix", "group-", "--max-payload", "10")
	valid := `{"user":"42","data":"x"}` + "\n"
	for _, test := range []struct {
		name, line string
		code       int
		want       string
	}{
		{"not JSON", "x", 400, "one JSON object per line"},
		{"an array", `[{"user":"42","data":"x"}]`, 400, "one JSON object per line"},
		{"a string", `"42"`, 400, "one JSON object per line"},
		{"cut", `{"user":"42"`, 400, "not a complete JSON object on one line"},
		{"two objects", `{"user":"42","data":"x"}{"user":"42","data":"x"}`, 400, "one JSON object per line"},
		{"no recipient", `{"data":"x"}`, 400, "either for a user or for a group"},
		{"two recipients", `{"user":"42","group":"team-7","data":"x"}`, 400, "either for a user or for a group"},
		{"null", `{"user":null,"data":"x"}`, 400, "either for a user or for a group"},
		{"a fraction", `{"user":42.0,"data":"x"}`, 400, "user and group must be strings or integers"},
		{"an exponent", `{"group":1e3,"data":"x"}`, 400, "user and group must be strings or integers"},
		{"a negative zero", `{"user":-0,"data":"x"}`, 400, "user and group must be strings or integers"},
		{"a list of users", `{"user":["42"],"data":"x"}`, 400, "user and group must be strings or integers"},
		{"a topic that is a number", `{"user":42,"topic":5,"data":"x"}`, 400, "topic must be a string"},
		{"a misspelled field", `{"user":"42","tpoic":"news","data":"x"}`, 400, "tpoic"},
		{"no data", `{"user":"42"}`, 400, "data is missing"},
		{"an empty user", `{"user":"","data":"x"}`, 400, "empty"},
		{"a separator", `{"group":"a:b","data":"x"}`, 400, "the group name must not be empty or contain ':'"},
		{"not UTF-8", "{\"user\":\"4\xff\",\"data\":\"x\"}", 400, "UTF-8"},
		{"too large", `{"user":"42","data":"12345678901"}`, 413, "--max-payload"},
		{"too large, an object", `{"user":"42","data":{"a":12345}}`, 413, "--max-payload"},
	} {
		code, answer := post(t, h, "/api/messages", valid+"\n"+test.line+"\n"+valid)
		if code != test.code || !strings.Contains(answer, "line 3: ") || !strings.Contains(answer, test.want) || strings.Contains(answer, "json:") || !json.Valid([]byte(answer)) {
			t.Errorf("%s: status %d %s, want %d and %s", test.name, code, answer, test.code, test.want)
		}
	}
	for _, test := range []struct{ body, want string }{
		{strings.Repeat(valid, 1001), "more than 1000 messages"},
		{strings.Repeat(" ", 16<<20) + valid, "larger than 16 MiB"},
	} {
		if code, answer := post(t, h, "/api/messages", test.body); code != 413 || !strings.Contains(answer, test.want) {
			t.Errorf("%s: status %d %s", test.want, code, answer)
		}
	}
	if code, answer := post(t, h, "/api/messages", `{"user":"42","data":"1234567890"}`); code != 200 || answer != `{"published":1}` {
		t.Errorf("status %d %s", code, answer)
	}
	h.WantMetrics(t, map[string]float64{"usercast_messages_received_total": 1})
}

// After an error, the number of messages that were certainly published is known.
func TestBatchSaysHowFarItCame(t *testing.T) {
	t.Parallel()
	forEachFeed(t, func(t *testing.T, server *redistest.Server, feed string) {
		publisher := hubtest.NewPublisher(t, server.Addr())
		publisher.Do(t, "ACL", "SETUSER", "hub", "on", ">secret", "+@all", "~*", "allchannels")
		h := hubtest.New(t, strings.Replace(server.URL(), "redis://", "redis://hub:secret@", 1), "--feed", feed)
		hubtest.Run(t, h)
		h.AwaitReady(t)
		line := func(user string) string { return `{"user":"` + user + `","data":"x"}` + "\n" }
		batch := strings.Repeat(line("42"), 150) + line("43") + strings.Repeat(line("42"), 10)
		want, grant := 150, "&user-*"
		if feed == app.FeedPubSub {
			publisher.Do(t, "ACL", "SETUSER", "hub", "resetchannels", "&user-42")
		} else {
			publisher.Do(t, "ACL", "SETUSER", "hub", "-xadd")
			want, grant = 0, "+"
		}
		code, answer := post(t, h, "/api/messages", batch)
		if code != 502 || !strings.HasSuffix(answer, fmt.Sprintf(`,"published":%d}`, want)) || !strings.Contains(answer, "ACL SETUSER hub "+grant) {
			t.Errorf("status %d %s", code, answer)
		}
		server.Kill()
		if code, answer := post(t, h, "/api/messages", batch); code != 502 || !strings.HasSuffix(answer, `,"published":0}`) {
			t.Errorf("without Redis: status %d %s", code, answer)
		}
	})
}
