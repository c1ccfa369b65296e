package hub

import (
	"regexp"
	"strings"
	"testing"
)

func FuzzIDHasOneSpelling(f *testing.F) {
	for _, s := range []string{"1-0", "1-18446744073709551615", "boot-0", "1-01", "-1", "1-", "1", "1-+1", "1-1-1", "1-18446744073709551616", "20000000000000000000-0", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := parseID(s)
		if ok && id.String() != s {
			t.Errorf("%q is read as %v", s, id)
		}
	})
}

func FuzzIDRoundTrip(f *testing.F) {
	f.Add(uint64(0), uint64(0))
	f.Add(uint64(0), ^uint64(0))
	f.Add(uint64(1526919030474), uint64(3))
	f.Fuzz(func(t *testing.T, ms, seq uint64) {
		want := ID{Ms: ms, Seq: seq}
		if got, ok := parseID(want.String()); want != UnknownID && (!ok || got != want) {
			t.Errorf("%v is read as %v, %v", want, got, ok)
		}
	})
}

// An id cannot be mistaken for one of a Redis stream, which has digits on both sides. A boot does not contain
// characters that end a line or a query parameter.
func TestBootDistinguishesProcesses(t *testing.T) {
	valid := regexp.MustCompile(`^[a-z][a-z2-7]{7}$`)
	seen := make(map[string]bool)
	for range 10_000 {
		boot := newBoot()
		if !valid.MatchString(boot) {
			t.Fatalf("boot %q", boot)
		}
		if seen[boot] {
			t.Fatalf("%q came twice", boot)
		}
		seen[boot] = true
	}
}

func TestReasonsAndGapsMatchTheContract(t *testing.T) {
	var words []string
	for _, c := range Reasons() {
		words = append(words, c.String())
	}
	if got, want := strings.Join(words, "|"), "closed|dead|slow|expired|max_age|kicked|drain|poll|error"; got != want {
		t.Errorf("reasons %s, want %s", got, want)
	}
	words = nil
	for _, g := range Gaps() {
		words = append(words, g.String())
	}
	if got, want := strings.Join(words, "|"), "redis-reconnect|history-expired|unknown-id|too-large|feed-reset|missed"; got != want {
		t.Errorf("gaps %s, want %s", got, want)
	}
	h := NewPubSub(Config{})
	s := h.Stats()
	for _, c := range Reasons() {
		_, disconnects := s.Disconnects[c]
		_, discards := s.FramesDiscarded[c]
		if !disconnects || !discards {
			t.Errorf("%v is not in Stats from the start", c)
		}
	}
	for _, g := range Gaps() {
		if _, ok := s.Gaps[g]; !ok {
			t.Errorf("%v is not in Stats from the start", g)
		}
	}
}
