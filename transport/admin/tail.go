package admin

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"usercast/hub"
)

// maxTails bounds the number of tails, because each filters every message.
const maxTails = 8

// A Tail receives the messages of one user or group. Only one goroutine may use it.
type Tail interface {
	// Ready returns a channel that receives a value when Take has something to return.
	Ready() <-chan struct{}
	// Take returns the messages since the last call, and how many were skipped after them because
	// the list was full.
	Take() (messages []Message, skipped uint64)
	Close()
}

// A Message is a message or a gap in a tail.
type Message struct {
	ID        string
	Topic     string
	Data      string
	Broadcast bool
	Gap       string // reason of a gap; "" for a message
}

// tails serves GET /api/users/<id>/messages and GET /api/groups/<id>/messages.
type tails struct {
	open  func(of hub.Recipient, remote string) Tail // nil: disabled
	names names
	done  <-chan struct{}
	slots slots
}

func (t *tails) get(kind func(name string) hub.Recipient) echo.HandlerFunc {
	return func(c echo.Context) error {
		of, err := t.names.recipient(c, kind)
		if err != nil {
			return err
		}
		return t.follow(c, of)
	}
}

func (t *tails) follow(c echo.Context, of hub.Recipient) error {
	if t.open == nil {
		return echo.NewHTTPError(http.StatusNotFound, "live tail is disabled; start the hub with --console-tail to enable it")
	}
	if err := t.slots.enter("tails"); err != nil {
		return err
	}
	defer t.slots.leave()
	tail := t.open(of, c.Request().RemoteAddr) // before the head: messages that arrive after it must not be missed
	defer tail.Close()
	out, err := openEvents(c, 3*time.Second)
	if err != nil {
		return err
	}
	ping := time.NewTicker(eventsPing)
	defer ping.Stop()
	for {
		select {
		case <-tail.Ready():
			if err := out.addMessages(tail.Take()); err != nil {
				return err
			}
		case <-ping.C:
			out.addPing()
		case <-c.Request().Context().Done():
			return nil
		case <-t.done:
			return nil
		}
		if out.flush() != nil { // the client has disconnected
			return nil
		}
	}
}

func (s *eventWriter) addMessages(messages []Message, skipped uint64) error {
	type message struct {
		ID        string `json:"id"`
		Topic     string `json:"topic"`
		Data      string `json:"data"`
		Broadcast bool   `json:"broadcast,omitempty"`
	}
	type gap struct {
		ID     string `json:"id"`
		Reason string `json:"reason"`
	}
	for _, m := range messages {
		var err error
		if m.Gap != "" {
			err = s.add("gap", gap{m.ID, m.Gap})
		} else {
			err = s.add("", message{m.ID, m.Topic, m.Data, m.Broadcast})
		}
		if err != nil {
			return err
		}
	}
	if skipped > 0 {
		return s.add("skipped", map[string]uint64{"messages": skipped})
	}
	return nil
}
