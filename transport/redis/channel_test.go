package redis

import "testing"

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
		user, topic, ok := SplitChannel("user-", c.channel)
		if user != c.user || topic != c.topic || ok != c.ok {
			t.Errorf("SplitChannel(%q) = %q, %q, %v; want %q, %q, %v", c.channel, user, topic, ok, c.user, c.topic, c.ok)
		}
	}
}

func TestChannelRejectsWhatSplitChannelCannotReverse(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"", "4:2", ":"} {
		if name, err := Channel("user-", user, "x"); err == nil {
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

func TestRoutingDoesNotAllocate(t *testing.T) {
	p := &PubSub{cfg: PubSubConfig{
		ChannelPrefix: "user-", MaxPayload: 10, Hub: noStreams{},
	}}
	if n := testing.AllocsPerRun(100, func() { p.route("user-42:activity", "payload") }); n != 0 {
		t.Errorf("%v allocations per message, want 0", n)
	}
}

// FuzzSplitChannel compares SplitChannel with a separate implementation of the contract.
func FuzzSplitChannel(f *testing.F) {
	f.Add("user-", "user-42:activity:x")
	f.Add("user-", "user-:")
	f.Add("a*:", "a*:b")
	f.Add("user-", "user-\xff:\r\n\x00")
	f.Fuzz(func(t *testing.T, prefix, channel string) {
		var user, topic []byte
		begins := len(channel) >= len(prefix)
		colon := false
		for i := range len(channel) {
			switch {
			case i < len(prefix):
				begins = begins && channel[i] == prefix[i]
			case colon:
				topic = append(topic, channel[i])
			case channel[i] == ':':
				colon = true
			default:
				user = append(user, channel[i])
			}
		}
		gotUser, gotTopic, ok := SplitChannel(prefix, channel)
		if ok != (begins && len(user) > 0) {
			t.Fatalf("SplitChannel(%q, %q): ok = %v", prefix, channel, ok)
		}
		if !ok {
			return
		}
		if gotUser != string(user) || gotTopic != string(topic) {
			t.Fatalf("SplitChannel(%q, %q) = %q, %q; want %q, %q", prefix, channel, gotUser, gotTopic, user, topic)
		}
		name, err := Channel(prefix, gotUser, gotTopic)
		if err != nil || name != channel && name+":" != channel {
			t.Fatalf("Channel(%q, %q, %q) = %q, %v; want %q", prefix, gotUser, gotTopic, name, err, channel)
		}
	})
}
