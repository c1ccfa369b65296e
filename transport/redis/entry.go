package redis

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"strconv"
	"strings"
)

// An EntryID is the id of an entry of a Redis stream: <ms>-<seq>.
type EntryID struct{ Ms, Seq uint64 }

func (id EntryID) String() string {
	return strconv.FormatUint(id.Ms, 10) + "-" + strconv.FormatUint(id.Seq, 10)
}

// Compare is negative when id is older than other, 0 when they are the same.
func (id EntryID) Compare(other EntryID) int {
	return cmp.Or(cmp.Compare(id.Ms, other.Ms), cmp.Compare(id.Seq, other.Seq))
}

func (id EntryID) before(other EntryID) bool { return id.Compare(other) < 0 }

// Before is the last id before this one.
func (id EntryID) Before() EntryID {
	switch {
	case id.Seq > 0:
		return EntryID{id.Ms, id.Seq - 1}
	case id.Ms > 0:
		return EntryID{id.Ms - 1, math.MaxUint64}
	}
	return id
}

// next is the first id after this one.
func (id EntryID) next() EntryID {
	switch {
	case id.Seq < math.MaxUint64:
		return EntryID{id.Ms, id.Seq + 1}
	case id.Ms < math.MaxUint64:
		return EntryID{id.Ms + 1, 0}
	}
	return id
}

var errEntryID = errors.New("id of an entry")

// parseEntryID reads an id of Redis's.
func parseEntryID(s string) (id EntryID, err error) {
	ms, seq, _ := strings.Cut(s, "-")
	if id.Ms, err = strconv.ParseUint(ms, 10, 64); err == nil {
		id.Seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if err != nil {
		return EntryID{}, fmt.Errorf("%w: %w", errEntryID, err)
	}
	return id, nil
}

// An Entry is one entry of the log.
type Entry struct {
	ID                   EntryID
	User, Topic, Payload string // User "": no message, only its id counts
	TooLarge             bool   // Payload was over MaxPayload and is left out

	order string // of a control entry
	mark  uint64 // tells it from another entry with the same id
}

// marking is the process's: marks are never told to anybody. A mark is a sum over the fields of an
// entry, so that it is the same for the same fields, whatever their order.
var marking = maphash.MakeSeed()

// maxFieldName is the length of the longest name of a field that is read.
const maxFieldName = int64(len("data"))

// tooLong stands for a control command that is longer than any may be.
var tooLong = strings.Repeat(" ", maxControl+1)

// keeps is how many bytes of a field's value are held at most.
func (l *Log) keeps(name string, what keeping) int64 {
	switch {
	case name == "ctl" && what >= keepCommands:
		return maxControl
	case name == "ch" && what == keepAll:
		return logConnBuffer
	case name == "data" && what == keepAll:
		return int64(l.cfg.MaxPayload)
	}
	return -1
}

// message is the fields of an entry. A value that was not held is "", with its length.
type message struct {
	ctl, ch, data        string
	ctlSize, size        int64
	isCtl, named, filled bool
}

func (m *message) set(name, value string, size int64) {
	switch name {
	case "ctl":
		m.ctl, m.ctlSize, m.isCtl = value, size, true
	case "ch":
		m.ch, m.named = value, true
	case "data":
		m.data, m.size, m.filled = value, size, true
	}
}

// fill makes an entry of its fields: ch and data of a message, or ctl of a control command.
func (l *Log) fill(e *Entry, m *message) {
	if m.isCtl {
		if e.order = m.ctl; m.ctlSize > maxControl {
			e.order = tooLong // also where no command is kept: nothing is done with it there
		}
		return
	}
	user, topic, ok := SplitChannel(l.cfg.ChannelPrefix, m.ch)
	if !m.named || !m.filled || !ok {
		return
	}
	e.User, e.Topic, e.Payload = user, topic, m.data
	e.TooLarge = m.size > int64(l.cfg.MaxPayload)
}
