package sse

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"usercast/hub"
)

// mediaType is a stream's content type to the letter: a charset suffix has
// defeated proxies that stream this type only (cloudflared#262).
const mediaType = "text/event-stream"

// An Event is a block of a stream that a browser dispatches as an event. See WHATWG
// HTML, "Server-sent events", section "Interpreting an event stream".
type Event struct {
	Retry time.Duration // time before a reconnect, in whole milliseconds; 0: unchanged
	ID    string        // the browser's last event id from now on; "": unchanged
	Name  string        // the event's type; "": message
	Data  string
}

// ErrField is returned for an id or a name that contains a line end or NUL.
var ErrField = errors.New("sse: line end or NUL in an event's id or name")

// AppendEvent appends the wire form of e to dst. Each CR, LF or CRLF in the data
// starts a new data line; the browser joins the lines with LF. An id or name that
// contains CR, LF or NUL is rejected with ErrField, and dst is returned unchanged:
// line ends would allow field injection, and browsers ignore an id with NUL.
func AppendEvent(dst []byte, e Event) ([]byte, error) {
	if !fitsLine(e.ID) || !fitsLine(e.Name) {
		return dst, ErrField
	}
	dst = slices.Grow(dst, len("retry: 1234567\nevent: \ndata: \nid: \n\n")+len(e.Name)+len(e.Data)+len(e.ID))
	dst = appendRetry(dst, e.Retry)
	dst = appendField(dst, "event: ", e.Name)
	dst = appendData(dst, e.Data)
	dst = appendField(dst, "id: ", e.ID)
	return append(dst, '\n'), nil
}

// Each block that the hub writes on its own behalf is made by one of the following. Their
// ids have been through writableID or are the hub's. See decision 0034 for the order of the
// fields.

// keepAlive is a ping without an id. It has no blank line: some client libraries fire an
// empty message at one.
var keepAlive = []byte(":\n")

// blockSize is about what an opening block takes.
const blockSize = 96

// appendOpening appends the block that every stream begins with.
func appendOpening(dst []byte, retry time.Duration, id string) []byte {
	return mustAppendEvent(append(slices.Grow(dst, blockSize), keepAlive...), Event{Retry: retry, Name: "ping", Data: "{}", ID: id})
}

func appendPing(dst []byte, id string) []byte {
	return mustAppendEvent(dst, Event{Name: "ping", Data: "{}", ID: id})
}

// appendBusy appends the one block of a temporary rejection. The id is the client's own; "": it sent none.
func appendBusy(dst []byte, retry time.Duration, reason, id string) []byte {
	return mustAppendEvent(append(slices.Grow(dst, blockSize), keepAlive...), Event{Retry: retry, Name: "busy", Data: reasonJSON(reason), ID: id})
}

func appendBye(dst []byte, retry time.Duration, reason, id string) []byte {
	return mustAppendEvent(dst, Event{Retry: retry, Name: "bye", Data: reasonJSON(reason), ID: id})
}

// maxID bounds the ids of clients that are written back to them, in bytes.
const maxID = 128

// writableID is an id that a client sent, or hub.UnknownID in its place if it is too long or
// has characters that no id of a hub has.
func writableID(id string) string {
	if len(id) > maxID {
		return hub.UnknownID.String()
	}
	for i := range len(id) {
		if c := id[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
			return hub.UnknownID.String()
		}
	}
	return id
}

func fitsLine(s string) bool { return !strings.ContainsAny(s, "\r\n\x00") }

func appendRetry(dst []byte, retry time.Duration) []byte {
	if retry <= 0 {
		return dst
	}
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, retry.Milliseconds(), 10)
	return append(dst, '\n')
}

func appendField(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(dst, name...)
	dst = append(dst, value...)
	return append(dst, '\n')
}

// appendData appends at least one data line: without any, the browser would not
// fire the event.
func appendData(dst []byte, data string) []byte {
	const field = "data: " // the browser takes one space off, so a payload may begin with one
	hasCR := strings.IndexByte(data, '\r') >= 0
	for {
		end := strings.IndexByte(data, '\n')
		if hasCR {
			end = strings.IndexAny(data, "\r\n")
		}
		dst = append(dst, field...)
		if end < 0 {
			dst = append(dst, data...)
			return append(dst, '\n')
		}
		dst = append(dst, data[:end]...)
		dst = append(dst, '\n')
		if strings.HasPrefix(data[end:], "\r\n") {
			end++
		}
		data = data[end+1:]
	}
}

// ourNames are fired by the hub or by the browser itself. A topic of such a name
// arrives at onmessage, else a page would take the one for the other.
var ourNames = []string{"open", "error", "message", "gap", "busy", "bye", "ping"}

func canName(topic string) bool {
	return fitsLine(topic) && !slices.Contains(ourNames, topic)
}

// reasonJSON is the data of gap, busy and bye.
func reasonJSON(reason string) string { return `{"reason":"` + reason + `"}` }

// EncodeEntry is the hub.Encoder of this package.
func EncodeEntry(dst []byte, e hub.Entry, named bool) []byte {
	var name, data string
	switch {
	case e.Gap != 0:
		name, data = "gap", reasonJSON(e.Gap.String())
	case named && canName(e.Topic):
		name, data = e.Topic, e.Payload
	default:
		data = e.Payload
	}
	var room [48]byte
	id := e.ID.Append(room[:0])
	dst = slices.Grow(dst, len("id: \nevent: \ndata: \n\n")+len(id)+len(name)+len(data))
	dst = appendField(dst, "event: ", name)
	dst = appendData(dst, data)
	dst = append(dst, "id: "...)
	dst = append(dst, id...)
	return append(dst, "\n\n"...)
}

// mustAppendEvent is for ids of our own and names that are known to fit.
func mustAppendEvent(dst []byte, e Event) []byte {
	dst, err := AppendEvent(dst, e)
	if err != nil {
		panic(err)
	}
	return dst
}
