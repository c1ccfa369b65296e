package stream

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/internal/app"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// A groupMode is a mode of --auth that returns groups.
type groupMode struct {
	flags []string

	// request returns the query and the headers of a user's request. From then on, the user is a member of the groups.
	request func(user string, groups ...string) (query string, headers []string)
}

// groupModes returns all modes of --auth.
var groupModes = map[string]func(t *testing.T) groupMode{
	"insecure": func(*testing.T) groupMode {
		return groupMode{nil, func(user string, groups ...string) (string, []string) {
			return url.Values{"user": {user}, "group": groups}.Encode(), nil
		}}
	},
	"header": func(*testing.T) groupMode {
		return groupMode{[]string{"--auth", "header", "--trusted-proxy", "127.0.0.1"}, func(user string, groups ...string) (string, []string) {
			return "", []string{"X-User-ID: " + user, "X-User-Groups: " + strings.Join(groups, ", ")}
		}}
	},
	"jwt": func(t *testing.T) groupMode {
		const secret = "a secret of at least thirty-two bytes"
		flags := []string{"--auth", "jwt", "--jwt-secret-file", hubtest.SecretFile(t, secret), "--jwt-groups-claim", "app.teams"}
		return groupMode{flags, func(user string, groups ...string) (string, []string) {
			// The default claim would be rejected.
			claims := map[string]any{"sub": user, "exp": time.Now().Add(time.Hour).Unix(), "app": map[string]any{"teams": groups}, "groups": "*"}
			return "", []string{"Authorization: Bearer " + hubtest.Token(t, secret, claims)}
		}}
	},
	"forward": func(t *testing.T) groupMode {
		var members sync.Map // groups by user
		app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			cookie, err := r.Cookie("session")
			if err != nil {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			groups, _ := members.Load(cookie.Value)
			w.Header().Set("X-User-ID", cookie.Value)
			w.Header().Set("X-User-Groups", strings.Join(groups.([]string), ","))
		}))
		t.Cleanup(app.Close)
		return groupMode{[]string{"--auth", "forward", "--forward-url", app.URL + "/session"}, func(user string, groups ...string) (string, []string) {
			members.Store(user, groups)
			return "", []string{hubtest.SessionCookie(user)}
		}}
	},
}

// A groupHub is a hub with groups, and an app that publishes through its feed.
type groupHub struct {
	*hubtest.Hub
	mode    groupMode
	publish func(channel, payload string)
}

// startGroupHub starts a hub with groups.
func startGroupHub(t *testing.T, server *redistest.Server, feed string, mode groupMode, flags ...string) groupHub {
	t.Helper()
	h := hubtest.Start(t, server, slices.Concat([]string{"--feed", feed, "--group-prefix", "group-"}, mode.flags, flags)...)
	publisher := hubtest.NewPublisher(t, server.Addr())
	publish := func(channel, payload string) {
		if feed == app.FeedStream {
			publisher.Append(t, channel, payload)
		} else {
			publisher.Publish(t, channel, payload)
		}
	}
	return groupHub{h, mode, publish}
}

// open opens a stream, with a resume id if it is not empty.
func (h groupHub) open(t *testing.T, resume, user string, groups ...string) *ssetest.Stream {
	t.Helper()
	query, headers := h.mode.request(user, groups...)
	if resume != "" {
		query += "&last-event-id=" + resume
	}
	return h.Open(t, query, headers...)
}

// A stream receives the messages of its groups. Other groups are those of its next request, which then also decide about
// the replay.
func TestGroupsInEachMode(t *testing.T) {
	t.Parallel()
	for name, mode := range groupModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forEachFeed(t, func(t *testing.T, server *redistest.Server, feed string) {
				h := startGroupHub(t, server, feed, mode(t))
				both, one, none := h.open(t, "", "42", "team-7", "b", "team-7"), h.open(t, "", "43", "team-7"), h.open(t, "", "44")
				h.WantMetrics(t, map[string]float64{"usercast_clients": 3, "usercast_users": 3, "usercast_groups": 2})
				for _, message := range []string{
					"group-team-7:news", "group-b", "user-42:news", "group-*", "group-c", "group-42", "group-team-", "group-", "user-b", "user-*",
				} {
					h.publish(message, message)
				}
				both.Want(t, "group-team-7:news", "group-b", "user-42:news", "user-*")
				one.Want(t, "group-team-7:news", "user-*")
				none.Want(t, "user-*")

				if a := hubtest.Request(t, "DELETE", h.AdminURL("/api/users/42")); a.Status != 200 {
					t.Fatalf("%d %s", a.Status, a.Body)
				}
				both.WantEvent(t, "bye", `{"reason":"kicked"}`)
				both.WantEnd(t)
				for _, message := range []string{"group-team-7", "group-c:news", "group-b", "user-42"} {
					h.publish(message, message)
				}
				one.Want(t, "group-team-7") // so that the hub has received it
				again := h.open(t, both.LastID, "42", "b", "c")
				h.publish("user-*", "to all")
				again.Want(t, "group-c:news", "group-b", "user-42", "to all")
				h.WantMetrics(t, map[string]float64{"usercast_clients": 3, "usercast_groups": 3})
			})
		})
	}
}

// A user with more groups than --max-groups, or with one that cannot be used, is rejected. The reason is in the response and
// once in the log.
func TestGroupsThatAreRejected(t *testing.T) {
	t.Parallel()
	names := func(n int) []string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprint("team-", i)
		}
		return all
	}
	for name, mode := range groupModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			m := mode(t)
			h := hubtest.Start(t, server, append([]string{"--group-prefix", "group-"}, m.flags...)...)
			query, headers := m.request("42", append(names(64), "team-0")...)
			p := h.Open(t, query, headers...)
			hubtest.NewPublisher(t, server.Addr()).Publish(t, "group-team-63", "hello")
			p.Want(t, "hello")
			rejected := 0
			for _, test := range []struct {
				groups     []string
				text, hint string
			}{
				{names(65), "a member of 65 groups, and at most 64 are allowed (--max-groups)", "raise --max-groups"},
				{[]string{"a", "team:7"}, `invalid group \"team:7\": it contains ':'`, "set --topic-separator"},
				{[]string{"a", "*"}, `invalid group \"*\"`, "* is always reserved"},
			} {
				for range 2 {
					query, headers := m.request("43", test.groups...)
					if a := hubtest.Request(t, "GET", h.PublicURL("/events?"+query), headers...); a.Status != 403 || !strings.Contains(a.Body, test.text) || strings.Contains(a.Body, "43") {
						t.Errorf("%.80q: %d %s", test.groups, a.Status, a.Body)
					}
					rejected++
				}
				hubtest.Eventually(t, "the rejection is logged", func() bool {
					return len(h.Log.Lines("stream rejected", "user=43", "reason=bad-user", test.text, test.hint)) == 1
				})
			}
			if lines := h.Log.Lines("stream rejected"); len(lines) != 3 {
				t.Errorf("rejections are logged in %d lines, want 3: %q", len(lines), lines)
			}
			// The app has removed the user from that group: a cached session check must not be the reason of a rejection.
			query, headers = m.request("43", "a")
			h.Open(t, query, headers...)
			h.WantMetrics(t, map[string]float64{
				"usercast_rejects_total" + hubtest.Reason("bad-user"): float64(rejected),
				"usercast_groups": 65, "usercast_clients": 2,
			})
		})
	}
}

func TestMaxGroups(t *testing.T) {
	t.Parallel()
	mode := groupModes["insecure"](t)
	server := redistest.Start(t)
	few := hubtest.Start(t, server, "--group-prefix", "group-", "--max-groups", "2")
	open := func(groups ...string) int {
		query, _ := mode.request("42", groups...)
		return hubtest.Request(t, "GET", few.PublicURL("/events?poll=1&"+query)).Status
	}
	if status := open("a", "b", "c"); status != 403 {
		t.Errorf("3 groups of at most 2: %d", status)
	}
	few.Open(t, "user=42&group=a&group=b&group=a")
	unlimited := hubtest.Start(t, server, "--group-prefix", "group-", "--max-groups", "0")
	query := "user=42"
	for i := range 1000 {
		query += fmt.Sprint("&group=", i)
	}
	p := unlimited.Open(t, query)
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "group-999", "hello")
	p.Want(t, "hello")
}

// Without --group-prefix, groups are not read: what would be rejected is ignored.
func TestGroupsAreNotReadWithoutPrefix(t *testing.T) {
	t.Parallel()
	for name, mode := range groupModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			m := mode(t)
			flags := m.flags
			if name == "jwt" {
				flags = flags[:4] // --jwt-groups-claim would be an error, as --max-groups
			}
			h := hubtest.Start(t, server, flags...)
			query, headers := m.request("42", "*", "a:b", "c", `"`)
			p := h.Open(t, query, headers...)
			app := hubtest.NewPublisher(t, server.Addr())
			if n := app.Publish(t, "group-c", "nobody"); n != 0 {
				t.Errorf("%d subscribers receive messages for groups", n)
			}
			app.Publish(t, "user-42", "hello")
			p.Want(t, "hello")
			h.WantMetrics(t, map[string]float64{"usercast_groups": 0, "usercast_messages_received_total": 1})
		})
	}
}

// A stream receives the messages of its user, of its groups and broadcasts in the order in which Redis sent them, live and
// in a replay.
func TestOrderOfUserGroupAndBroadcast(t *testing.T) {
	t.Parallel()
	const messages = 1200
	forEachFeed(t, func(t *testing.T, server *redistest.Server, feed string) {
		h := startGroupHub(t, server, feed, groupModes["insecure"](t), "--queue", "5000", "--history-per-user", "5000")
		p, topic := h.open(t, "", "42", "a", "b"), h.open(t, "", "42", "a", "b")
		first := topic.LastID
		topic.Close()
		channels := []string{"user-42", "group-a", "user-*:x", "group-b:x", "user-42:x", "group-a:x", "user-*"}
		for i := range messages {
			h.publish(channels[i%len(channels)], fmt.Sprint(i))
		}
		replayed := h.open(t, first, "42", "b", "a")
		for _, s := range []*ssetest.Stream{p, replayed} {
			if err := s.ExpectNumbers(messages); err != nil {
				t.Error(err)
			}
		}
		polled := h.Open(t, "user=42&group=a&group=b&poll=1&last-event-id="+first)
		if err := polled.ExpectNumbers(messages); err != nil {
			t.Error(err)
		}
		polled.WantEnd(t)
		filtered := h.Open(t, "user=42&group=a&group=b&topic=x&last-event-id="+first)
		for i := range messages {
			if strings.HasSuffix(channels[i%len(channels)], ":x") {
				filtered.Want(t, fmt.Sprint(i))
			}
		}
	})
}
