package redis

import (
	"strings"
	"testing"

	"usercast/hub"
)

func TestChannelNamesRecipientAndTopic(t *testing.T) {
	t.Parallel()
	channels := Channels{Users: "user-", Groups: "group-", Separator: ':'}
	for _, c := range []struct {
		channel, name, topic string
		ok                   bool
	}{
		{"user-42", "42", "", true},
		{"user-42:", "42", "", true},
		{"user-42:activity", "42", "activity", true},
		{"user-42:a:b:", "42", "a:b:", true},
		{"user-*:news", "*", "news", true},
		{"user-user-42", "user-42", "", true},
		{"user-\xff\x00:\xfe", "\xff\x00", "\xfe", true},
		{"user-", "", "", false},
		{"user-:activity", "", "activity", false},
		{"other-42", "", "", false},
		{"", "", "", false},
	} {
		to, topic, ok := channels.Split(c.channel)
		if to != hub.User(c.name) || topic != c.topic || ok != c.ok {
			t.Errorf("Split(%q) = %v, %q, %v; want %q, %q, %v", c.channel, to, topic, ok, c.name, c.topic, c.ok)
		}
		if !c.ok {
			continue
		}
		channel := "group-" + strings.TrimPrefix(c.channel, "user-")
		if to, topic, ok := channels.Split(channel); to != hub.Group(c.name) || topic != c.topic || !ok {
			t.Errorf("Split(%q) = %v, %q, %v", channel, to, topic, ok)
		}
		if name, err := channels.Name(to, topic); err != nil || name != strings.TrimSuffix(c.channel, ":") && name != c.channel {
			t.Errorf("Name(%v, %q) = %q, %v; want %q", to, topic, name, err, c.channel)
		}
	}
	if to, _, ok := (Channels{Users: "user-", Separator: ':'}).Split("group-42"); ok {
		t.Errorf("without groups: %v", to)
	}
	if name, err := (Channels{Users: "user-", Separator: ':'}).Name(hub.Group("42"), ""); err == nil || !strings.Contains(err.Error(), "--group-prefix") {
		t.Errorf("without groups: %q, %v", name, err)
	}
}

func TestPrefixesMustNotStartWithEachOther(t *testing.T) {
	t.Parallel()
	for groups, ok := range map[string]bool{
		"": true, "group-": true, "users-": true, "User-": true, "user:": true,
		"user-": false, "user": false, "user-group-": false, "u": false, "usercast:": false, "usercast:user-": false,
	} {
		if err := (Channels{Users: "user-", Groups: groups}).ValidateGroups(); (err == nil) != ok {
			t.Errorf("prefix of groups %q: %v", groups, err)
		}
	}
	if (Channels{Users: "user-", Groups: "group-"}).ValidateControlChannel("group-control") == nil {
		t.Error("a control channel that is a group's channel is accepted")
	}
}

func TestAnotherSeparatorAllowsColonsInUserIDs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ user, topic, channel string }{
		{"f:0b1c:alice", "activity", "user-f:0b1c:alice/activity"},
		{"accounts.google.com:1", "", "user-accounts.google.com:1"},
		{"a:", "b:c/d", "user-a:/b:c/d"},
		{"*", "news", "user-*/news"},
	} {
		channels := Channels{Users: "user-", Separator: '/'}
		if channel, err := channels.Name(hub.User(c.user), c.topic); err != nil || channel != c.channel {
			t.Errorf("Name(%q, %q) = %q, %v; want %q", c.user, c.topic, channel, err, c.channel)
		}
		if to, topic, ok := channels.Split(c.channel); to != hub.User(c.user) || topic != c.topic || !ok {
			t.Errorf("Split(%q) = %v, %q, %v; want %q, %q", c.channel, to, topic, ok, c.user, c.topic)
		}
	}
	if name, err := (Channels{Users: "user-", Separator: '/'}).Name(hub.User("a/b"), ""); err == nil || !strings.Contains(err.Error(), "--topic-separator") {
		t.Errorf("Name accepts a user with the separator: %q, %v", name, err)
	}
}

func TestSeparatorIsAPunctuationMarkWithoutMeaningInPatterns(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		want := strings.IndexByte("!\"#$%&'()+,-./:;<=>@^_`{|}~", byte(c)) >= 0
		if err := ValidateSeparator(byte(c)); (err == nil) != want {
			t.Errorf("separator %q: %v", byte(c), err)
		}
	}
}

func TestNameRejectsWhatSplitCannotReverse(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"", "4:2", ":"} {
		if name, err := (Channels{Users: "user-", Separator: ':'}).Name(hub.User(user), "x"); err == nil {
			t.Errorf("Name accepts user %q: %q, want an error", user, name)
		}
	}
}

func TestPrefixThatMatchesInternalChannelsIsRejected(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "u", "user", "usercast", "usercast:", "usercast:u", "usercast:usercast:"} {
		if ValidatePrefix(bad) == nil {
			t.Errorf("prefix %q is accepted", bad)
		}
	}
	for _, good := range []string{"user-", "usercast-", "app:user-", "usercast:x", "*", ":", "üser/"} {
		if err := ValidatePrefix(good); err != nil {
			t.Errorf("prefix %q: %v", good, err)
		}
	}
}

// noStreams is a hub without streams.
type noStreams struct{ PubSubHub }

func (noStreams) Publish(hub.Recipient, string, string) int { return 0 }
func (noStreams) AwaitPlaces(func())                        {}

func TestRoutingDoesNotAllocate(t *testing.T) {
	p := &PubSub{cfg: PubSubConfig{
		Channels: Channels{Users: "user-", Groups: "group-", Separator: ':'}, MaxPayload: 10, Hub: noStreams{},
	}}
	for _, channel := range []string{"user-42:activity", "group-42:activity"} {
		if n := testing.AllocsPerRun(100, func() { p.route(channel, "payload") }); n != 0 {
			t.Errorf("%s: %v allocations per message, want 0", channel, n)
		}
	}
}

// FuzzChannels compares Channels.Split with a separate implementation of the contract.
func FuzzChannels(f *testing.F) {
	f.Add("user-", byte(':'), "user-42:activity:x")
	f.Add("user-", byte(':'), "user-:")
	f.Add("a*:", byte('/'), "a*:b/c/d")
	f.Add("user-", byte('|'), "user-\xff:\r\n\x00")
	f.Fuzz(func(t *testing.T, prefix string, separator byte, channel string) {
		if ValidateSeparator(separator) != nil {
			return
		}
		var user, topic []byte
		begins := len(channel) >= len(prefix)
		separated := false
		for i := range len(channel) {
			switch {
			case i < len(prefix):
				begins = begins && channel[i] == prefix[i]
			case separated:
				topic = append(topic, channel[i])
			case channel[i] == separator:
				separated = true
			default:
				user = append(user, channel[i])
			}
		}
		channels := Channels{Users: prefix, Separator: separator}
		to, gotTopic, ok := channels.Split(channel)
		if ok != (begins && len(user) > 0) {
			t.Fatalf("%+v.Split(%q): ok = %v", channels, channel, ok)
		}
		// With the prefix of groups, the same channel is one of a group.
		if asGroup := (Channels{Users: "x" + prefix, Groups: prefix, Separator: separator}); prefix != "" && !strings.HasPrefix(channel, asGroup.Users) {
			group, groupTopic, groupOK := asGroup.Split(channel)
			if groupOK != ok || ok && group != hub.Group(to.Name) || groupTopic != gotTopic {
				t.Fatalf("%+v.Split(%q) = %v, %q, %v; without groups %v, %q, %v", asGroup, channel, group, groupTopic, groupOK, to, gotTopic, ok)
			}
		}
		if !ok {
			return
		}
		if to != hub.User(string(user)) || gotTopic != string(topic) {
			t.Fatalf("%+v.Split(%q) = %v, %q; want %q, %q", channels, channel, to, gotTopic, user, topic)
		}
		name, err := channels.Name(to, gotTopic)
		if err != nil || name != channel && name+string(rune(separator)) != channel {
			t.Fatalf("%+v.Name(%v, %q) = %q, %v; want %q", channels, to, gotTopic, name, err, channel)
		}
	})
}
