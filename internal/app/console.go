package app

import (
	"fmt"
	"log/slog"
	"time"

	"usercast/hub"
	"usercast/internal/flags"
	"usercast/metrics"
	"usercast/transport/admin"
)

// Stats is the response of GET /api/stats. docs/console.md explains each field.
type Stats struct {
	Version       string    `json:"version"`
	Time          time.Time `json:"time"`
	Started       time.Time `json:"started"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Ready         bool      `json:"ready"`
	Why           string    `json:"why,omitempty"` // why the hub is not ready
	Draining      bool      `json:"draining"`
	ConsoleTail   bool      `json:"console_tail"`
	GroupsEnabled bool      `json:"groups_enabled"`
	Limits        Limits    `json:"limits"`
	metrics.Snapshot
}

// Limits are the configured limits of the values in Stats; 0 means no limit.
type Limits struct {
	MaxClients        int     `json:"max_clients"`
	MaxClientsPerUser int     `json:"max_clients_per_user"`
	QueueFrames       int     `json:"queue_frames"`
	QueueBytes        int     `json:"queue_bytes"`
	QueueTotalBytes   int     `json:"queue_total_bytes"`
	HistoryPerUser    int     `json:"history_per_user"`
	HistoryAgeSeconds float64 `json:"history_age_seconds"`
	HistoryBytes      int     `json:"history_bytes"`
	MaxPayloadBytes   int     `json:"max_payload_bytes"`
}

// A console provides the data of the console, the page of the admin listener.
type console struct {
	hub       *hub.Hub
	health    *health
	sources   metrics.Sources
	limits    Limits
	started   time.Time
	tail      bool // --console-tail
	groups    bool // --group-prefix is set
	separator byte // --topic-separator
	log       *slog.Logger
}

// page returns the console for package admin. It ends its open requests when done is closed.
func (c console) page(done <-chan struct{}) admin.Console {
	page := admin.Console{Done: done, Groups: c.groups, TopicSeparator: c.separator, Stats: func() any { return c.stats() }}
	if c.tail {
		page.Tail = c.openTail
	}
	return page
}

func (c console) stats() Stats {
	status, now := c.health.status(), time.Now()
	return Stats{
		Version: c.sources.Version, Time: now.UTC(), Started: c.started.UTC(), UptimeSeconds: now.Sub(c.started).Seconds(),
		Ready: status.Ready, Why: status.Why, Draining: c.health.draining.Load(), ConsoleTail: c.tail, GroupsEnabled: c.groups,
		Limits:   c.limits,
		Snapshot: c.sources.Snapshot(),
	}
}

// openTail opens a live tail of the messages of a user or group, and logs it.
func (c console) openTail(of hub.Recipient, remote string) admin.Tail {
	kind := "user"
	if of.Group {
		kind = "group"
	}
	c.log.Info("tail opened", slog.String(kind, fmt.Sprintf("%.100s", of.Name)), slog.String("remote", remote))
	return tail{c.hub.Tap(of)}
}

// limitsOf returns the limits of a hub. The argument streams is the number of streams for which the process has file
// descriptors.
func limitsOf(c *Config, streams int) Limits {
	maxClients := c.MaxClients.T
	if maxClients == flags.Auto {
		maxClients = streams
	}
	return Limits{
		MaxClients: maxClients, MaxClientsPerUser: c.MaxClientsPerUser.T,
		QueueFrames: c.Queue.T, QueueBytes: c.QueueBytes.T, QueueTotalBytes: c.QueueTotalBytes.T,
		HistoryPerUser: c.HistoryPerUser.T, HistoryAgeSeconds: c.HistoryAge.T.Seconds(), HistoryBytes: c.HistoryBytes.T,
		MaxPayloadBytes: c.MaxPayload.T,
	}
}

// A tail adapts a hub.Tap to package admin.
type tail struct{ *hub.Tap }

func (t tail) Take() (messages []admin.Message, skipped uint64) {
	entries, skipped := t.Tap.Take()
	for _, e := range entries {
		m := admin.Message{ID: string(e.AppendID(nil)), Topic: e.Topic, Data: e.Payload, Broadcast: e.ToAll}
		if e.Gap != 0 {
			m.Gap = e.Gap.String()
		}
		messages = append(messages, m)
	}
	return messages, skipped
}
