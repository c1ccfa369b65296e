package redis

import (
	"strings"
	"testing"
)

func TestChannelNamesUserAndTopic(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		channel, user, topic string
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
		user, topic, ok := SplitChannel("user-", ':', c.channel)
		if user != c.user || topic != c.topic || ok != c.ok {
			t.Errorf("SplitChannel(%q) = %q, %q, %v; want %q, %q, %v", c.channel, user, topic, ok, c.user, c.topic, c.ok)
		}
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
		if channel, err := Channel("user-", '/', c.user, c.topic); err != nil || channel != c.channel {
			t.Errorf("Channel(%q, %q) = %q, %v; want %q", c.user, c.topic, channel, err, c.channel)
		}
		if user, topic, ok := SplitChannel("user-", '/', c.channel); user != c.user || topic != c.topic || !ok {
			t.Errorf("SplitChannel(%q) = %q, %q, %v; want %q, %q", c.channel, user, topic, ok, c.user, c.topic)
		}
	}
	if name, err := Channel("user-", '/', "a/b", ""); err == nil || !strings.Contains(err.Error(), "--topic-separator") {
		t.Errorf("Channel accepts a user with the separator: %q, %v", name, err)
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

func TestChannelRejectsWhatSplitChannelCannotReverse(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"", "4:2", ":"} {
		if name, err := Channel("user-", ':', user, "x"); err == nil {
			t.Errorf("Channel accepts user %q: %q, want an error", user, name)
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

func (noStreams) Publish(string, string, string) int { return 0 }
func (noStreams) AwaitPlaces(func())                 {}

func TestRoutingDoesNotAllocate(t *testing.T) {
	p := &PubSub{cfg: PubSubConfig{
		ChannelPrefix: "user-", TopicSeparator: ':', MaxPayload: 10, Hub: noStreams{},
	}}
	if n := testing.AllocsPerRun(100, func() { p.route("user-42:activity", "payload") }); n != 0 {
		t.Errorf("%v allocations per message, want 0", n)
	}
}

// FuzzSplitChannel compares SplitChannel with a separate implementation of the contract.
func FuzzSplitChannel(f *testing.F) {
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
		gotUser, gotTopic, ok := SplitChannel(prefix, separator, channel)
		if ok != (begins && len(user) > 0) {
			t.Fatalf("SplitChannel(%q, %q, %q): ok = %v", prefix, separator, channel, ok)
		}
		if !ok {
			return
		}
		if gotUser != string(user) || gotTopic != string(topic) {
			t.Fatalf("SplitChannel(%q, %q, %q) = %q, %q; want %q, %q", prefix, separator, channel, gotUser, gotTopic, user, topic)
		}
		name, err := Channel(prefix, separator, gotUser, gotTopic)
		if err != nil || name != channel && name+string(rune(separator)) != channel {
			t.Fatalf("Channel(%q, %q, %q, %q) = %q, %v; want %q", prefix, separator, gotUser, gotTopic, name, err, channel)
		}
	})
}
