package main

import (
	"slices"
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

func TestPublish(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	p, other := h.Open(t, "user=42&event=topic"), h.Open(t, "user=7")
	for _, test := range []struct {
		args       []string
		stdin      string
		channel    string
		name, data string
		toAll      bool
	}{
		{[]string{"42:activity", `{"id":7}`}, "", "user-42:activity", "activity", `{"id":7}`, false},
		{[]string{"42", "hello"}, "unread", "user-42", "message", "hello", false},
		{[]string{"42", ""}, "unread", "user-42", "message", "", false},
		{[]string{"42", "-"}, "from stdin\n", "user-42", "message", "from stdin\n", false},
		{[]string{"42:a:b"}, "no argument", "user-42:a:b", "a:b", "no argument", false},
		{[]string{"42", "--", "--data"}, "", "user-42", "message", "--data", false},
		{[]string{"*", "to all"}, "", "user-*", "message", "to all", true},
		{[]string{"*:news", "to all"}, "", "user-*:news", "news", "to all", true},
	} {
		code, stdout, stderr := runCommand(test.stdin, append([]string{"publish", "--redis", server.URL()}, test.args...)...)
		if want := "published to " + test.channel + ", received by 1 subscriber\n"; code != 0 || stdout != want || stderr != "" {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
		}
		p.WantEvent(t, test.name, test.data)
		if test.toAll {
			other.Want(t, test.data)
		}
	}
	hint := "usercast: hint: no hub received the message; check that a hub is running with the same --redis (" + server.Addr() + ") and --channel-prefix (other-)\n"
	if code, stdout, stderr := runCommand("", "publish", "--redis", server.URL(), "--channel-prefix", "other-", "42", "x"); code != 0 || stdout != "published to other-42, received by 0 subscribers\n" || stderr != hint {
		t.Errorf("another prefix: exit code %d, %q, %q, want %q", code, stdout, stderr, hint)
	}
	replica := redistest.StartReplica(t, server)
	hint = "usercast: hint: no hub received the message; " + replica.Addr() + " is a replica, so use the address of the primary\n"
	if code, _, stderr := runCommand("", "publish", "--redis", replica.URL(), "42", "x"); code != 0 || stderr != hint {
		t.Errorf("a replica: exit code %d, %q, want %q", code, stderr, hint)
	}
	server.Kill()
	code, stdout, stderr := runCommand("", "publish", "--redis", server.URL(), "42", "x")
	if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, server.Addr()) {
		t.Errorf("unreachable Redis: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestPublishToAGroup(t *testing.T) {
	t.Parallel()
	for _, feed := range []string{"pubsub", "stream"} {
		t.Run(feed, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			h := hubtest.Start(t, server, "--feed", feed, "--group-prefix", "group-")
			member, other := h.Open(t, "user=42&group=team-7&event=topic"), h.Open(t, "user=team-7")
			flags := []string{"publish", "--redis", server.URL(), "--feed", feed, "--group-prefix", "group-", "--group"}
			for _, test := range []struct {
				args                       []string
				stdin, channel, name, data string
			}{
				{[]string{"team-7:news", `{"id":7}`}, "", "group-team-7:news", "news", `{"id":7}`},
				{[]string{"team-7"}, "from stdin", "group-team-7", "message", "from stdin"},
				{[]string{"team-7:a:b", "x"}, "", "group-team-7:a:b", "a:b", "x"},
			} {
				want := "published to " + test.channel + ", received by 1 subscriber\n"
				if feed == "stream" {
					want = "appended to usercast:log for " + test.channel + ", entry id "
				}
				code, stdout, stderr := runCommand(test.stdin, append(flags, test.args...)...)
				if code != 0 || !strings.HasPrefix(stdout, want) || stderr != "" {
					t.Errorf("%q: exit code %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
				}
				member.WantEvent(t, test.name, test.data)
			}
			if code, _, stderr := runCommand("", append(slices.Delete(slices.Clone(flags), len(flags)-1, len(flags)), "team-7", "to the user")...); code != 0 || stderr != "" {
				t.Errorf("exit code %d, stderr %q", code, stderr)
			}
			other.Want(t, "to the user") // and not what the group has received
		})
	}
}

func TestPublishToAGroupExplainsErrors(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	hubtest.Start(t, server) // without groups
	for _, test := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"--group", "team-7", "x"}, 2, `"team-7": groups are disabled; set --group-prefix, such as group-`},
		{[]string{"--group", "--group-prefix", "group-", ":news", "x"}, 2, `":news": the group name must not be empty`},
		{[]string{"--group", "--group-prefix", "group-", "*:news", "x"}, 2, `"*:news": * does not stand for all groups, and no user can be a member of it; omit --group`},
		{[]string{"--group", "--group-prefix", "user-", "team-7", "x"}, 2, "--group-prefix: the channel prefixes of users and groups must not start with each other"},
		{[]string{"--group", "--group-prefix", "user-group-", "team-7", "x"}, 2, "--group-prefix: the channel prefixes of users and groups must not start with each other"},
		{[]string{"--group", "--group-prefix", "user", "team-7", "x"}, 2, "--group-prefix: the channel prefixes of users and groups must not start with each other"},
		{[]string{"--group", "--group-prefix", "usercast:", "team-7", "x"}, 2, "--group-prefix: the channel prefix also matches usercast's internal channels"},
		{[]string{"--group", "--group-prefix", "group-", "team-7", "x"}, 0, "hint: no hub received the message; check that a hub is running with the same --redis (" + server.Addr() + ") and --group-prefix (group-)"},
		{[]string{"--group-prefix", "*[", "--group", "team-7", "x"}, 0, "--group-prefix (*[)"},
	} {
		code, _, stderr := runCommand("", append([]string{"publish", "--redis", server.URL()}, test.args...)...)
		if code != test.code || !strings.Contains(stderr, test.stderr) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit code %d, stderr %q; want %d, %q", test.args, code, stderr, test.code, test.stderr)
		}
	}
}

// User ids and topics come from apps, and errors from the server. A terminal must not execute them.
func TestPublishEscapesWhatIsNotPrintable(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, feed := range []string{"pubsub", "stream"} {
		_, stdout, _ := runCommand("", "publish", "--redis", server.URL(), "--feed", feed, "42:\x1b[2J", "x")
		if !strings.Contains(stdout, `"user-42:\x1b[2J"`) || strings.Contains(stdout, "\x1b") {
			t.Errorf("%s: %q", feed, stdout)
		}
	}
	fake := redistest.StartFake(t, func(...string) string { return "-ERR \x1b[2J" }, false)
	if code, _, stderr := runCommand("", "publish", "--redis", "redis://"+fake, "42", "x"); code != 1 || !strings.Contains(stderr, "ERR") || strings.Contains(stderr, "\x1b") {
		t.Errorf("exit code %d: %q", code, stderr)
	}
}

// The hub, its API and the publish command use the database in the Redis URL for the stream.
func TestStreamFeedUsesTheDatabaseOfItsURL(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	url := server.URL() + "/3"
	h := hubtest.Run(t, hubtest.New(t, url, "--feed", "stream"))
	h.AwaitSubscription(t, 1)
	p := h.Open(t, "user=42")
	app := hubtest.NewPublisher(t, server.Addr())
	app.Do(t, "SELECT", "3")
	app.Append(t, "user-42", "by the app")
	p.Want(t, "by the app")
	code, stdout, stderr := runCommand("", "publish", "--redis", url, "--feed", "stream", "42:a", "by the command")
	if code != 0 || !strings.HasPrefix(stdout, "appended to usercast:log for user-42:a, entry id ") || stderr != "" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	p.Want(t, "by the command")
	if a := hubtest.Request(t, "POST", h.AdminURL("/api/users/42/messages")); a.Status != 200 || !strings.Contains(a.Body, `"id":"`) {
		t.Errorf("%+v", a)
	}
	p.Want(t, "")
	if _, stdout, _ := runCommand("", "check", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--redis", url, "--auth", "insecure", "--feed", "stream"); !strings.Contains(stdout, "usercast:log has 3 entries") {
		t.Errorf("check prints\n%s", stdout)
	}
}
