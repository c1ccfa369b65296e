package redis

import (
	"hash/maphash"
	"strings"

	"usercast/hub"
)

// An entry is one entry of the Redis stream.
type entry struct {
	hub.Entry                 // Gap is GapTooLarge if the payload was over MaxPayload and is omitted
	to          hub.Recipient // zero: not a message; only the id matters
	command     string        // the text of a control command, or ""
	fingerprint uint64        // distinguishes it from another entry with the same id
}

// entryCost is the estimated overhead of an entry in memory, in bytes.
const entryCost = 192

// size returns the estimated memory of an entry in bytes.
func (e *entry) size() int64 {
	return int64(len(e.to.Name) + len(e.Topic) + len(e.Payload) + len(e.command) + entryCost)
}

// fingerprintSeed is the seed of all fingerprints, which are used only within this process. A fingerprint is a sum of
// hashes of the fields of an entry, so it does not depend on their order.
var fingerprintSeed = maphash.MakeSeed()

// maxFieldName is the length of the longest field name that is used.
const maxFieldName = int64(len("data"))

// tooLong replaces a control command that is longer than the limit. It is malformed.
var tooLong = strings.Repeat(" ", maxControl+1)

// keeping selects what to keep of entries, in addition to their ids and fingerprints.
type keeping int

const (
	keepNothing  keeping = iota
	keepCommands         // control commands
	keepAll
)

// keepBytes returns up to how many bytes the value of a field is kept; -1: not at all.
func (f *StreamFeed) keepBytes(name string, what keeping) int64 {
	switch {
	case name == "ctl" && what >= keepCommands:
		return maxControl
	case name == "ch" && what == keepAll:
		return streamBuffer
	case name == "data" && what == keepAll:
		return int64(f.cfg.MaxPayload)
	}
	return -1
}

// fields are the fields of an entry. A value that was not kept is ""; its size is known.
type fields struct {
	ctl, ch, data          string
	ctlSize, dataSize      int64
	hasCtl, hasCh, hasData bool
}

func (s *fields) set(name, value string, size int64) {
	switch name {
	case "ctl":
		s.ctl, s.ctlSize, s.hasCtl = value, size, true
	case "ch":
		s.ch, s.hasCh = value, true
	case "data":
		s.data, s.dataSize, s.hasData = value, size, true
	}
}

// fill sets an entry from its fields: ch and data of a message, or ctl of a control command.
func (f *StreamFeed) fill(e *entry, s *fields) {
	if s.hasCtl {
		if e.command = s.ctl; s.ctlSize > maxControl {
			e.command = tooLong // ignored with keepNothing
		}
		return
	}
	to, topic, ok := f.cfg.Channels.Split(s.ch)
	if !s.hasCh || !s.hasData || !ok {
		return
	}
	e.to, e.Topic, e.Payload = to, topic, s.data
	if s.dataSize > int64(f.cfg.MaxPayload) {
		e.Gap = hub.GapTooLarge
	}
}
