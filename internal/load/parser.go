package load

import "bytes"

// A parser parses the bytes of one event stream, in pieces of any size, and calls a handler for each event and each ping.
// It holds a buffer only for a line that is split between two pieces.
//
// See WHATWG HTML, 9.2.6 "Interpreting an event stream". Fields that bench does not need (retry, the value of id) are
// skipped.
type parser struct {
	carry  []byte // an incomplete line; nil without one
	name   eventName
	filled bool // the block has a data line
	id     bool // the block has an id line or, for the first block, a comment
	opened bool // the first block has ended
	begun  bool // a byte has arrived
	cr     bool // the last line ended in CR: a following LF belongs to it
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

// A handler receives the events that a parser finds.
type handler interface {
	// message is a message of this run, identified by its stamp.
	message(s stamp)
	// foreign is an event of another publisher.
	foreign()
	// gap, busy and bye are events of the hub, with their reasons.
	gap(reason string)
	busy(reason string)
	bye(reason string)
	// ping is a comment, an event ping, or a block that only advances the id.
	ping()
}

// feed parses the next bytes. start is the beginning of all payloads of the run.
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

// lineEnd returns the index of the end of the first line, or -1. A CR is rare: usercast does not write it.
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
		} else { // the first block of a hub begins with a comment and counts once
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
		// Messages of this run and events of the hub have one data line.
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

// reasonOf returns x for {"reason":"x"}, and "" otherwise.
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

// dispatch processes the end of a block.
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
