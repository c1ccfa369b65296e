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
	Connects    uint64            `json:"connects"`
	Disconnects map[string]uint64 `json:"disconnects"` // by reason
	Rejects     map[string]uint64 `json:"rejects"`     // by reason
	RejectsHeld int               `json:"rejects_held"`

	Feeds []Feed `json:"feeds"`

	FramesEnqueued  uint64            `json:"frames_enqueued"`
	FramesQueued    int64             `json:"frames_queued"`
	FramesDiscarded map[string]uint64 `json:"frames_discarded"` // by reason
	QueueBytes      int64             `json:"queue_bytes"`
	Deliveries      uint64            `json:"deliveries"`
	DeliveryBytes   uint64            `json:"delivery_bytes"`
	Replayed        uint64            `json:"replayed"`
	Gaps            map[string]uint64 `json:"gaps"` // by reason
	HistoryEntries  int               `json:"history_entries"`
	HistoryBytes    int64             `json:"history_bytes"`

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
	h, streams, checks := read(s.Hub), read(s.Streams), read(s.Checks)
	out := Snapshot{
		Clients: h.Clients, Users: h.Users, Connects: h.Connects,
		Disconnects:    byReason(h.Disconnects, hub.Reason.String),
		Rejects:        streams.Rejects,
		RejectsHeld:    streams.Held,
		FramesEnqueued: h.FramesEnqueued, FramesQueued: h.FramesQueued,
		FramesDiscarded: byReason(h.FramesDiscarded, hub.Reason.String),
		QueueBytes:      h.QueueBytes,
		Deliveries:      h.Deliveries, DeliveryBytes: h.DeliveryBytes, Replayed: h.Replayed,
		Gaps:           byReason(h.Gaps, hub.Gap.String),
		HistoryEntries: h.HistoryEntries, HistoryBytes: h.HistoryBytes,
		AuthConcurrency: checks.Concurrency, AuthInFlight: checks.InFlight, AuthWaiting: checks.Waiting,
		LogDropped:      read(s.LogDropped),
		DeliverySeconds: asHistogram(streams.Delivery),
		AuthSeconds:     asHistogram(streams.Auth),
	}
	var probes histogram.Snapshot
	for _, f := range read(s.Feeds) {
		out.Feeds = append(out.Feeds, asFeed(f))
		probes.Add(f.Probe)
	}
	out.RedisProbeSeconds = asHistogram(probes)
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

func byReason[R comparable](counts map[R]uint64, word func(R) string) map[string]uint64 {
	out := make(map[string]uint64, len(counts))
	for reason, n := range counts {
		out[word(reason)] = n
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
