package metrics

import (
	"cmp"
	"slices"

	"usercast/hub"
	"usercast/internal/histogram"
	"usercast/transport/redis"
)

// A Snapshot contains the statistics of all packages as one JSON object. Its names are those of the metrics, without prefix
// and _total. docs/console.md explains each.
type Snapshot struct {
	Clients     int               `json:"clients"`
	Users       int               `json:"users"`
	Groups      int               `json:"groups"`
	OnlineUsers *int              `json:"online_users,omitempty"` // on any hub; nil without --presence, and as long as the number is not known
	Connects    uint64            `json:"connects"`
	Disconnects map[string]uint64 `json:"disconnects"` // by reason
	Rejects     map[string]uint64 `json:"rejects"`     // by reason
	RejectsHeld int               `json:"rejects_held"`

	Feeds []Feed `json:"feeds"`

	Hubs             int        `json:"hubs"`
	Fleet            []FleetHub `json:"fleet"`
	FleetWhy         string     `json:"fleet_why,omitempty"` // why the fleet is not visible
	MarkerMismatches uint64     `json:"marker_mismatches"`

	FramesEnqueued  uint64            `json:"frames_enqueued"`
	FramesQueued    int64             `json:"frames_queued"`
	FramesDiscarded map[string]uint64 `json:"frames_discarded"` // by reason
	QueueBytes      int64             `json:"queue_bytes"`
	Deliveries      uint64            `json:"deliveries"`
	DeliveryBytes   uint64            `json:"delivery_bytes"`
	Replayed        uint64            `json:"replayed"`
	Gaps            map[string]uint64 `json:"gaps"`    // by reason
	Resumes         map[string]uint64 `json:"resumes"` // by origin

	HistoryEntries int                `json:"history_entries"`
	HistoryBytes   int64              `json:"history_bytes"`
	HistorySeconds map[string]float64 `json:"history_seconds"` // by scope

	AuthConcurrency int `json:"auth_concurrency"` // the current limit
	AuthInFlight    int `json:"auth_in_flight"`
	AuthWaiting     int `json:"auth_waiting"`

	LogDropped uint64 `json:"log_dropped"` // lines

	DeliverySeconds   Histogram `json:"delivery_seconds"`
	AuthSeconds       Histogram `json:"auth_seconds"`
	RedisProbeSeconds Histogram `json:"redis_probe_seconds"` // of all feeds
}

// A Feed is the state of the connection to one Redis, and the counters of its messages.
type Feed struct {
	Feed              string `json:"feed"`
	Redis             string `json:"redis"`
	Connected         bool   `json:"connected"`
	Reconnects        uint64 `json:"reconnects"`
	MessagesReceived  uint64 `json:"messages_received"`
	MessagesRouted    uint64 `json:"messages_routed"`
	MessagesUnrouted  uint64 `json:"messages_unrouted"`
	MessagesMalformed uint64 `json:"messages_malformed"`
	MessagesTooLarge  uint64 `json:"messages_too_large"`
	ControlReceived   uint64 `json:"control_received"`
	ControlMalformed  uint64 `json:"control_malformed"`
}

// A Histogram counts durations in seconds.
type Histogram struct {
	Count   uint64   `json:"count"`
	Sum     float64  `json:"sum"`
	Buckets []Bucket `json:"buckets"` // by LE; durations above the last LE are only in Count
}

// A Bucket counts all durations up to LE seconds.
type Bucket struct {
	LE    float64 `json:"le"`
	Count uint64  `json:"count"`
}

// Snapshot reads the sources. It is safe for concurrent use if they are.
func (s Sources) Snapshot() Snapshot {
	h, streams, checks, feeds := read(s.Hub), read(s.Streams), read(s.Checks), read(s.Feeds)
	out := Snapshot{
		Clients: h.Clients, Users: h.Users, Groups: h.Groups, Connects: h.Connects,
		Disconnects:    byWord(h.Disconnects, hub.Reason.String),
		Rejects:        streams.Rejects,
		RejectsHeld:    streams.Held,
		FramesEnqueued: h.FramesEnqueued, FramesQueued: h.FramesQueued,
		FramesDiscarded: byWord(h.FramesDiscarded, hub.Reason.String),
		QueueBytes:      h.QueueBytes,
		Deliveries:      h.Deliveries, DeliveryBytes: h.DeliveryBytes, Replayed: h.Replayed,
		Gaps:           byWord(h.Gaps, hub.Gap.String),
		Resumes:        byWord(h.Resumes, hub.Origin.String),
		HistoryEntries: h.HistoryEntries, HistoryBytes: h.HistoryBytes,
		HistorySeconds:  map[string]float64{scopeHere: h.HistoryHere.Seconds(), scopeElsewhere: h.HistoryElsewhere.Seconds()},
		AuthConcurrency: checks.Concurrency, AuthInFlight: checks.InFlight, AuthWaiting: checks.Waiting,
		LogDropped:      read(s.LogDropped),
		DeliverySeconds: asHistogram(streams.Delivery),
		AuthSeconds:     asHistogram(streams.Auth),
	}
	if n, ok := s.online(); ok {
		out.OnlineUsers = &n
	}
	var probes histogram.Snapshot
	for _, f := range feeds {
		out.Feeds = append(out.Feeds, asFeed(f))
		probes.Add(f.Probe)
	}
	out.RedisProbeSeconds = asHistogram(probes)
	out.Hubs, out.MarkerMismatches = countHubs(feeds), countMismatches(feeds)
	out.Fleet, out.FleetWhy = fleetOf(feeds)
	return out
}

func asFeed(f redis.Stats) Feed {
	return Feed{
		Feed: f.Feed, Redis: f.Redis, Connected: f.Connected, Reconnects: f.Reconnects,
		MessagesReceived: f.Received, MessagesRouted: f.Routed, MessagesUnrouted: f.Unrouted,
		MessagesMalformed: f.Malformed, MessagesTooLarge: f.TooLarge,
		ControlReceived: f.ControlReceived, ControlMalformed: f.ControlMalformed,
	}
}

// byWord replaces the keys of counts by their words.
func byWord[K comparable](counts map[K]uint64, word func(K) string) map[string]uint64 {
	out := make(map[string]uint64, len(counts))
	for key, n := range counts {
		out[word(key)] = n
	}
	return out
}

func asHistogram(h histogram.Snapshot) Histogram {
	out := Histogram{Count: h.Count, Sum: h.SumSeconds, Buckets: make([]Bucket, 0, len(h.Cumulative))}
	for le, n := range h.Cumulative {
		out.Buckets = append(out.Buckets, Bucket{le, n})
	}
	slices.SortFunc(out.Buckets, func(a, b Bucket) int { return cmp.Compare(a.LE, b.LE) })
	return out
}
