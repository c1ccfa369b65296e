package app

import (
	"fmt"
	"log/slog"
	"time"

	"usercast/hub"
	"usercast/metrics"
	"usercast/transport/admin"
)

// Stats is what GET /api/stats returns. docs/console.md explains each field.
type Stats struct {
	Version       string    `json:"version"`
	Time          time.Time `json:"time"`
	Started       time.Time `json:"started"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	Ready         bool      `json:"ready"`
	Why           string    `json:"why,omitempty"` // it is not ready
	Draining      bool      `json:"draining"`
	ConsoleTail   bool      `json:"console_tail"`
	Limits        Limits    `json:"limits"`
	metrics.Snapshot
}

// Limits are those that a figure above can run into; 0 is no limit.
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

// console is what the admin listener's page shows.
func (a *App) console(sources metrics.Sources) admin.Console {
	started := time.Now()
	c := admin.Console{Done: a.stopped, Stats: func() any {
		status, now := a.status(), time.Now()
		return Stats{
			Version: sources.Version, Time: now.UTC(), Started: started.UTC(), UptimeSeconds: now.Sub(started).Seconds(),
			Ready: status.Ready, Why: status.Why, Draining: a.draining.Load(), ConsoleTail: a.cfg.ConsoleTail,
			Limits:   a.limits,
			Snapshot: sources.Snapshot(),
		}
	}}
	if a.cfg.ConsoleTail {
		c.Tail = a.openTail
	}
	return c
}

func limitsOf(c *Config, maxClients int) Limits {
	return Limits{
		MaxClients: maxClients, MaxClientsPerUser: c.MaxClientsPerUser.T,
		QueueFrames: c.Queue.T, QueueBytes: c.QueueBytes.T, QueueTotalBytes: c.QueueTotalBytes.T,
		HistoryPerUser: c.HistoryPerUser.T, HistoryAgeSeconds: c.HistoryAge.T.Seconds(), HistoryBytes: c.HistoryBytes.T,
		MaxPayloadBytes: c.MaxPayload.T,
	}
}

// openTail lets an operator read along, and leaves a line that somebody did.
func (a *App) openTail(user, remote string) admin.Tail {
	a.log.Info("tail opened", slog.String("user", fmt.Sprintf("%.100s", user)), slog.String("remote", remote))
	return tail{a.hub.Tap(user)}
}

// tail shows a hub's tap to package admin.
type tail struct{ *hub.Tap }

func (t tail) Take() (messages []admin.Message, skipped uint64) {
	heard, skipped := t.Tap.Take()
	for _, e := range heard {
		m := admin.Message{ID: e.ID.String(), Topic: e.Topic, Data: e.Payload, Broadcast: e.ToAll}
		if e.Gap != 0 {
			m.Gap = e.Gap.String()
		}
		messages = append(messages, m)
	}
	return messages, skipped
}
