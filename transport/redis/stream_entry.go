package redis

import (
	"hash/maphash"
	"strings"

	"usercast/hub"
)

// An entry is one entry of the Redis stream.
type entry struct {
	hub.Entry        // Gap is GapTooLarge if the payload was over MaxPayload and is left out
	user      string // "": not a message, only the id counts
	command   string // of a control command
	mark      uint64 // distinguishes it from another entry with the same id
}

// entryCost is what an entry counts next to its text when it is held in memory.
const entryCost = 192

// size is what an entry counts when it is held in memory.
func (e *entry) size() int64 {
	return int64(len(e.user) + len(e.Topic) + len(e.Payload) + len(e.command) + entryCost)
}

// markSeed belongs to the process: marks never leave it. A mark is a sum over the fields of an
// entry, so that it is the same for the same fields, whatever their order.
var markSeed = maphash.MakeSeed()

// maxFieldName is the length of the longest name of a field that is read.
const maxFieldName = int64(len("data"))

// tooLong stands for a control command that is longer than the limit.
var tooLong = strings.Repeat(" ", maxControl+1)

// What to keep of entries, next to their ids and marks.
type keeping int

const (
	keepNothing  keeping = iota
	keepCommands         // control commands
	keepAll
)

// keepBytes returns how many bytes of a field's value are held at most.
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

// fields are the fields of an entry. A value that was not held is "", with its length.
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

// fill makes an entry of its fields: ch and data of a message, or ctl of a control command.
func (f *StreamFeed) fill(e *entry, s *fields) {
	if s.hasCtl {
		if e.command = s.ctl; s.ctlSize > maxControl {
			e.command = tooLong // also where no command is kept: it has no effect there
		}
		return
	}
	user, topic, ok := SplitChannel(f.cfg.ChannelPrefix, s.ch)
	if !s.hasCh || !s.hasData || !ok {
		return
	}
	e.user, e.Topic, e.Payload = user, topic, s.data
	if s.dataSize > int64(f.cfg.MaxPayload) {
		e.Gap = hub.GapTooLarge
	}
}
