package stream

import (
	"strings"
	"testing"

	"usercast/internal/app"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// The statistics of a hub name all hubs, and say where the clients that resume come from.
func TestStatsShowTheFleet(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := hubtest.Start(t, server, "--name", "hub-a")
	b := hubtest.Start(t, server, "--name", "hub-b")
	awaitReady(t, b)
	names := func(s app.Stats) string {
		var names []string
		for _, h := range s.Fleet {
			name := h.Name
			if h.Self {
				name += " (self)"
			}
			if h.OtherServer || h.OtherPatterns || h.AgeSeconds == nil || *h.AgeSeconds < 0 || *h.AgeSeconds > 30 || h.Version != s.Version {
				name += " is wrong"
			}
			names = append(names, name)
		}
		return strings.Join(names, ", ")
	}
	for hub, want := range map[*hubtest.Hub]string{a: "hub-a (self), hub-b", b: "hub-a, hub-b (self)"} {
		var s app.Stats
		hubtest.Eventually(t, "it has received the markers of both", func() bool {
			s = readStats(t, hub)
			return s.Hubs == 2 && s.Fleet[0].AgeSeconds != nil && s.Fleet[1].AgeSeconds != nil
		})
		if names(s) != want || s.FleetWhy != "" {
			t.Errorf("the fleet is %s, want %s; %s", names(s), want, s.FleetWhy)
		}
	}

	p := a.Open(t, "user=42")
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "hello")
	p.Want(t, "hello")
	id := p.LastID
	b.Open(t, "user=42", "Last-Event-ID: "+id)        // the user has not had a stream there
	b.Open(t, "user=42", "Last-Event-ID: "+id)        // the user has one there now
	b.Open(t, "user=7", "Last-Event-ID: malformed-x") // not an id
	want := map[string]uint64{"other_hub": 1, "this_hub": 1, "unknown": 1}
	hubtest.Eventually(t, "each resume is counted", func() bool {
		got := readStats(t, b).Resumes
		return len(got) == len(want) && got["other_hub"] == 1 && got["this_hub"] == 1 && got["unknown"] == 1
	})
	if s := readStats(t, b); s.HistorySeconds["here"] <= 0 || s.HistorySeconds["elsewhere"] <= 0 {
		t.Errorf("a replay reaches back %v", s.HistorySeconds)
	}
}

// Hubs without markers do not see each other, and say why.
func TestStatsSayWhyTheFleetIsNotVisible(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"with --feed stream, hubs do not write markers":   {"--feed", "stream"},
		"with several --redis, hubs do not write markers": {"--redis", redistest.Start(t).URL()},
	} {
		h := hubtest.Run(t, hubtest.New(t, redistest.Start(t).URL(), args...))
		awaitReady(t, h)
		if s := readStats(t, h); s.Hubs != 1 || len(s.Fleet) != 0 || s.FleetWhy != want {
			t.Errorf("%d hubs, %v, %q, want %q", s.Hubs, s.Fleet, s.FleetWhy, want)
		}
	}
}
