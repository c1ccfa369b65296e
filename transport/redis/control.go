package redis

import (
	"encoding/json"
	"errors"
	"fmt"

	"usercast/transport/redis/internal/fleet"
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

// maxMarker is the maximum size of a marker in bytes. In a fleet of 100 hubs, a marker has about 10 kB.
const maxMarker = 64 << 10

// ParseControl parses a control command. The error says what is invalid. It ignores unknown fields,
// so that a newer program can send more fields to an older hub.
func ParseControl(payload string) (Control, error) {
	if len(payload) > maxControl {
		return Control{}, errControlSize
	}
	c, err := decodeControl(payload)
	if err != nil {
		return Control{}, err
	}
	return c.validated()
}

// parseControlMessage parses a message on the control channel of a pub/sub feed: a marker, which is not nil then, or a
// control command.
func parseControlMessage(payload string) (Control, *fleet.Marker, error) {
	if len(payload) > maxMarker {
		return Control{}, nil, fmt.Errorf("marker or control command exceeds %d bytes", maxMarker)
	}
	c, err := decodeControl(payload)
	switch {
	case err != nil:
		return Control{}, nil, err
	case c.Op == fleet.Op:
		marker, err := fleet.ParseMarker(payload)
		if err != nil {
			return Control{}, nil, err
		}
		return Control{}, &marker, nil
	case len(payload) > maxControl:
		return Control{}, nil, errControlSize
	}
	c, err = c.validated()
	return c, nil, err
}

var errControlSize = fmt.Errorf("control command exceeds %d bytes", maxControl)

func decodeControl(payload string) (c Control, err error) {
	if err := json.Unmarshal([]byte(payload), &c); err != nil {
		return Control{}, errors.New(`control command must be JSON such as {"op":"disconnect","user":"42"}`)
	}
	return c, nil
}

func (c Control) validated() (Control, error) {
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
