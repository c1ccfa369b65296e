package stream

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

func TestMessageReachesOnlyTheStreamsOfItsUser(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	tab, phone := h.Open(t, "user=42"), h.Open(t, "user=42")
	stranger, namesake := h.Open(t, "user=7"), h.Open(t, "user=4")

	app.Publish(t, "user-42:activity", `{"kind":"comment","id":7}`)
	app.Publish(t, "user-42", "without a topic")
	app.Publish(t, "user-422:activity", "for a longer name")
	for _, user := range []string{"4", "7", "42"} {
		app.Publish(t, "user-"+user, "last")
	}
	for _, p := range []*ssetest.Stream{tab, phone} {
		p.Want(t, `{"kind":"comment","id":7}`, "without a topic", "last")
	}
	stranger.Want(t, "last")
	namesake.Want(t, "last")
}

func TestTopicFilter(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	pages := map[string]*ssetest.Stream{}
	for _, filter := range []string{"", "&topic=a", "&topic=a&topic=b:c", "&topic=", "&topic=a&topic=", "&topic=none"} {
		pages[filter] = h.Open(t, "user=42"+filter)
	}
	for _, channel := range []string{"user-42:a", "user-42:b", "user-42:b:c", "user-42", "user-42:", "user-42:A"} {
		app.Publish(t, channel, channel)
	}
	app.Publish(t, "user-*", "topic: ") // topic filters also apply to broadcasts
	app.Publish(t, "user-*:a", "topic: a")
	app.Publish(t, "user-*:none", "topic: none")
	for filter, want := range map[string][]string{
		"":                   {"user-42:a", "user-42:b", "user-42:b:c", "user-42", "user-42:", "user-42:A", "topic: ", "topic: a", "topic: none"},
		"&topic=a":           {"user-42:a", "topic: a"},
		"&topic=a&topic=b:c": {"user-42:a", "user-42:b:c", "topic: a"},
		"&topic=":            {"user-42", "user-42:", "topic: "},
		"&topic=a&topic=":    {"user-42:a", "user-42", "user-42:", "topic: ", "topic: a"},
		"&topic=none":        {"topic: none"},
	} {
		t.Run(filter, func(t *testing.T) { pages[filter].Want(t, want...) })
	}
	h.Interrupt()
	for filter, p := range pages {
		if e, err := p.Next(); err != nil || e.Type != "bye" {
			t.Errorf("filter %q passed %+v, %v", filter, e, err)
		}
	}
}

func TestEventTopicNamesEventsAfterTheirTopic(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	named, plain := h.Open(t, "user=42&event=topic"), h.Open(t, "user=42")
	for _, test := range []struct{ topic, name string }{
		{"activity", "activity"}, {"a:b c", "a:b c"}, {"grüße", "grüße"}, {"Gap", "Gap"},
		{"", "message"}, {"a\nid: 1", "message"}, {"a\r", "message"}, {"a\x00", "message"},
		{"open", "message"}, {"error", "message"}, {"message", "message"}, {"gap", "message"},
		{"busy", "message"}, {"bye", "message"}, {"ping", "message"},
	} {
		app.Publish(t, "user-42:"+test.topic, "of "+test.topic)
		want := strings.ReplaceAll("of "+test.topic, "\r", "\n")
		named.WantEvent(t, test.name, want)
		plain.WantEvent(t, "message", want)
	}
}

func TestBroadcastReachesEveryStream(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	pages := h.OpenMany(t, 40, func(i int) string { return fmt.Sprintf("user=%d", i%10) })
	app.Publish(t, "user-3", "before")
	app.Publish(t, "user-*", "to all")
	app.Publish(t, "user-*:news", "news to all")
	app.Publish(t, "user-3", "after")
	for i, p := range pages {
		want := []string{"to all", "news to all"}
		if i%10 == 3 {
			want = []string{"before", "to all", "news to all", "after"}
		}
		p.Want(t, want...)
	}
	h.WantMetrics(t, map[string]float64{"usercast_messages_routed_total": 4, "usercast_deliveries_total": 88})
}

func TestBroadcastUserCanBeChangedOrDisabled(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	off := hubtest.Start(t, server, "--broadcast-user", "")
	other := hubtest.Start(t, server, "--broadcast-user", "all")
	app := hubtest.NewPublisher(t, server.Addr())
	offPage, otherPage := off.Open(t, "user=42"), other.Open(t, "user=42")

	app.Publish(t, "user-*", "a star")
	app.Publish(t, "user-all:news", "to all")
	app.Publish(t, "user-", "malformed")
	app.Publish(t, "user-42", "last")
	offPage.Want(t, "last")
	otherPage.Want(t, "to all", "last")
	for _, u := range []string{"*", "all", "", "a:b"} {
		if a := hubtest.Request(t, "GET", other.PublicURL("/events?user="+u)); a.Status != 403 {
			t.Errorf("user %q is accepted: %d", u, a.Status)
		}
	}
	if a := hubtest.Request(t, "GET", off.PublicURL("/events?user=*")); a.Status != 403 {
		t.Errorf("user * is accepted although broadcast is disabled: %d", a.Status)
	}
}

// The prefix is matched literally, although PSUBSCRIBE uses patterns.
func TestGlobCharactersInThePrefixAreLiteral(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, test := range []struct {
		prefix  string
		foreign []string // channels that the unescaped pattern would match
	}{
		{"app[1]*-", []string{"app1-42", "app1x-42", "app[1]x-42"}},
		{`a?b\*`, []string{"axb42", `axb*42`, "a?b*42"}},
		{"[^x]", []string{"y42"}},
	} {
		t.Run(test.prefix, func(t *testing.T) {
			h := hubtest.Start(t, server, "--channel-prefix", test.prefix)
			app := hubtest.NewPublisher(t, server.Addr())
			p := h.Open(t, "user=42")
			for _, channel := range test.foreign {
				if n := app.Publish(t, channel, "foreign"); n != 0 {
					t.Errorf("the hub also receives %s", channel)
				}
			}
			if n := app.Publish(t, test.prefix+"42:a", "hello"); n != 1 {
				t.Errorf("%d hubs received the message, want 1", n)
			}
			p.Want(t, "hello")
			h.WantMetrics(t, map[string]float64{"usercast_messages_received_total": 1})
		})
	}
}

func TestPayloadsArriveUnchanged(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	p := h.Open(t, "user=42")
	var all []string
	for _, payload := range []string{
		"", " ", "\n", "\n\n", "a\nb", "a\rb", "a\r\nb", "\r\n\r\n", "trailing\n", ": no comment", "data: no field",
		"id: 1\n\ndata: no second event", "\ufeffbom", "grüße 👋", "\x00", "\xff\xfe", strings.Repeat("x", 200_000),
		strings.Repeat("line\n", 5000), string(allBytes()),
	} {
		app.Publish(t, "user-42", payload)
		all = append(all, strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(payload))
	}
	p.Want(t, all...)
}

func allBytes() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return slices.Concat(b, b)
}

// A page of an allowed origin can distinguish a wrong path from a network error.
func TestErrorResponsesCarryCORSHeaders(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, redistest.Start(t), "--allow-origin", "https://app.example")
	for _, path := range []string{"/nothing", "/events"} {
		r, err := http.NewRequest(http.MethodGet, "http://"+h.PublicAddr()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", "https://app.example")
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if got := answer.Header.Get("Access-Control-Allow-Origin"); answer.StatusCode < 400 || got != "https://app.example" {
			t.Errorf("%s: %s, Access-Control-Allow-Origin %q", path, answer.Status, got)
		}
		if got := answer.Header.Values("Vary"); len(got) != 1 || got[0] != "Origin" {
			t.Errorf("%s: Vary %q", path, got)
		}
	}
}
