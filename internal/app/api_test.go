package app

import (
	"testing"

	"usercast/hub"
	"usercast/transport/sse"
)

// A list of a large group is cut off, and says how many streams the group has.
func TestListOfAGroupIsBounded(t *testing.T) {
	t.Parallel()
	h := hub.NewPubSub(hub.Config{Encode: sse.EncodeEntry})
	for _, user := range []string{"1", "2", "2"} {
		if _, err := h.Register(hub.Options{User: user, Groups: []string{"a", "b"}}); err != nil {
			t.Fatal(err)
		}
	}
	a := api{hub: h.Hub}
	for _, test := range []struct {
		of                   hub.Recipient
		limit, listed, total int
	}{
		{hub.Group("a"), 2, 2, 3}, {hub.Group("a"), 4, 3, 3}, {hub.Group("c"), 2, 0, 0}, {hub.User("2"), 1, 1, 2}, {hub.User("a"), 2, 0, 0},
	} {
		streams, total := a.streams(test.of, test.limit)
		if streams == nil || len(streams) != test.listed || total != test.total {
			t.Errorf("%v, at most %d: %d of %d, want %d of %d", test.of, test.limit, len(streams), total, test.listed, test.total)
		}
		for _, s := range streams {
			if (s.User != "") != test.of.Group || len(s.Groups) != 2 {
				t.Errorf("%v: stream of user %q in groups %q", test.of, s.User, s.Groups)
			}
		}
	}
}
