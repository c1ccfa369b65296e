package load

import "bytes"

// A parser takes the bytes of one event stream as they come, in pieces of any
// size, and calls the stream's handler for each event and each sign of life. It
// holds a buffer only between pieces that cut a line in two.
//
// See WHATWG HTML, 9.2.6 "Interpreting an event stream". Fields that bench does not
// need (retry, the id's value) are skipped.
type parser struct {
	carry  []byte // a line whose end has not come; nil: none
	name   eventName
	filled bool // a data line has come
	id     bool // an id line has come, or, in the first block, a comment
	opened bool // the first block has ended
	begun  bool // a byte has come
	cr     bool // the last line ended in CR: an LF that follows belongs to it
	read   stamp
	ours   bool // the data field is a payload of this run: read holds its stamp
	reason string
}

type eventName uint8

const (
	nameMessage eventName = iota
	nameGap
	nameBusy
	nameBye
	namePing
	nameOther
)

// A handler hears what a parser finds.
type handler interface {
	// message is a message of this run, known by its stamp.
	message(s stamp)
	// foreign is an event that is none of ours and no word of the hub's.
	foreign()
	// gap, busy and bye are the hub's words, with their reasons.
	gap(reason string)
	busy(reason string)
	bye(reason string)
	// ping is a comment, an event ping, or a block that only moves the id on.
	ping()
}

// feed takes the next bytes. Start is how the run's payloads begin.
func (p *parser) feed(b, start []byte, h handler) {
	for len(b) > 0 {
		if p.cr {
			p.cr = false
			if b[0] == '\n' {
				b = b[1:]
				continue
			}
		}
		i := lineEnd(b)
		if i < 0 {
			p.carry = append(p.carry, b...)
			return
		}
		line := b[:i]
		p.cr = b[i] == '\r'
		b = b[i+1:]
		if len(p.carry) > 0 {
			line = append(p.carry, line...)
			p.carry = nil
		}
		p.line(line, start, h)
	}
}

// lineEnd is where the first line ends, or -1. A CR is rare: our hub writes none.
func lineEnd(b []byte) int {
	i := bytes.IndexByte(b, '\n')
	head := b
	if i >= 0 {
		head = b[:i]
	}
	if j := bytes.IndexByte(head, '\r'); j >= 0 {
		return j
	}
	return i
}

func (p *parser) line(line, start []byte, h handler) {
	if !p.begun {
		p.begun = true
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	if len(line) == 0 {
		p.dispatch(start, h)
		return
	}
	if line[0] == ':' {
		if p.opened {
			h.ping()
		} else { // the first block counts once: a hub's begins with a comment
			p.id = true
		}
		return
	}
	field, value, _ := bytes.Cut(line, []byte{':'})
	if len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	switch string(field) {
	case "data":
		p.dataLine(value, start)
	case "event":
		p.name = nameOf(value)
	case "id":
		p.id = true
	}
}

func (p *parser) dataLine(value, start []byte) {
	if p.filled {
		// Ours and the hub's are one line; more than one is neither.
		p.ours, p.reason = false, ""
		return
	}
	p.filled = true
	p.read, p.ours = readPayload(value, start)
	if !p.ours {
		p.reason = reasonOf(value)
	}
}

func nameOf(value []byte) eventName {
	switch string(value) {
	case "", "message":
		return nameMessage
	case "gap":
		return nameGap
	case "busy":
		return nameBusy
	case "bye":
		return nameBye
	case "ping":
		return namePing
	}
	return nameOther
}

// reasonOf is x in {"reason":"x"}, else "".
func reasonOf(value []byte) string {
	rest, ok := bytes.CutPrefix(value, []byte(`{"reason":"`))
	if !ok {
		return ""
	}
	reason, _, ok := bytes.Cut(rest, []byte{'"'})
	if !ok {
		return ""
	}
	return string(reason)
}

// dispatch is what a blank line does.
func (p *parser) dispatch(start []byte, h handler) {
	switch {
	case !p.filled:
		if p.id {
			h.ping()
		}
	case p.name == nameGap:
		h.gap(p.reason)
	case p.name == nameBusy:
		h.busy(p.reason)
	case p.name == nameBye:
		h.bye(p.reason)
	case p.name == namePing:
		h.ping()
	case p.ours:
		h.message(p.read)
	default:
		h.foreign()
	}
	p.name, p.filled, p.id, p.ours, p.reason = nameMessage, false, false, false, ""
	p.opened = true
}
