package redis

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A Control is a control command for every hub: on the pub/sub feed a message on the control
// channel, on the stream feed an entry with the field ctl.
type Control struct {
	Op   string `json:"op"`
	User string `json:"user"`
}

// OpDisconnect ends all streams of a user.
const OpDisconnect = "disconnect"

// maxControl is the maximum size of a control command in bytes. It leaves room for a long user id.
const maxControl = 16 << 10

// ParseControl parses a control command. The error says what is invalid. It ignores unknown fields,
// so that a newer program can send more fields to an older hub.
func ParseControl(payload string) (Control, error) {
	if len(payload) > maxControl {
		return Control{}, fmt.Errorf("control command exceeds %d bytes", maxControl)
	}
	var c Control
	if err := json.Unmarshal([]byte(payload), &c); err != nil {
		return Control{}, errors.New(`control command must be JSON such as {"op":"disconnect","user":"42"}`)
	}
	switch {
	case c.Op != OpDisconnect:
		return Control{}, errors.New("unknown op in control command (known: disconnect)")
	case c.User == "":
		return Control{}, errors.New("control command without a user")
	}
	return c, nil
}

// String returns the command as it is sent.
func (c Control) String() string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // cannot happen: two strings
	}
	return string(b)
}
