package redis

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"
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

// marking is the process's: marks are never told to anybody.
var marking = maphash.MakeSeed()

// markOf is the same for the same fields, whatever their order.
func markOf(fields map[string]any) (mark uint64) {
	var h maphash.Hash
	h.SetSeed(marking)
	for name, value := range fields {
		text, _ := value.(string)
		h.Reset()
		h.WriteString(name)
		h.WriteByte(0)
		h.WriteString(text)
		mark += h.Sum64()
	}
	return mark
}

// read makes an entry of what Redis sent: the fields ch and data of a message, or
// ctl of an order. Other fields are the app's own.
func (l *Log) read(m goredis.XMessage) (Entry, error) {
	id, err := parseEntryID(m.ID)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{ID: id, mark: markOf(m.Values)}
	if order, ok := m.Values["ctl"].(string); ok {
		e.order = order
		return e, nil
	}
	channel, named := m.Values["ch"].(string)
	payload, filled := m.Values["data"].(string)
	user, topic, ok := SplitChannel(l.cfg.ChannelPrefix, channel)
	if !named || !filled || !ok {
		return e, nil
	}
	e.User, e.Topic, e.Payload = user, topic, payload
	if e.TooLarge = len(payload) > l.cfg.MaxPayload; e.TooLarge {
		e.Payload = ""
	}
	return e, nil
}

func (l *Log) readAll(list []goredis.XMessage) ([]Entry, error) {
	entries := make([]Entry, len(list))
	for i, m := range list {
		var err error
		if entries[i], err = l.read(m); err != nil {
			return nil, err
		}
	}
	return entries, nil
}
