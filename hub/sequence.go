package hub

import (
	"math"
	"time"
)

// A sequence is the order of all entries of a hub. It is guarded by Hub.mu.
type sequence struct {
	newest ID     // the newest entry that was routed, or marker that was received
	resets uint64 // how often the sequence went backwards
	// early lists clients whose id is later than newest: they were connected to a hub that has read further.
	early []*Client

	// Only with a PubSub. An id consists of the number of messages (Ms), the number of gaps since that message (the high
	// half of Seq) and the ordinal of the newest marker (the low half; 0: none).
	markers *markers
	marker  *marker // the newest one of this generation, or markers.own
}

// gapUnit is one gap in ID.Seq.
const gapUnit = 1 << 32

// number assigns the next id to a message of a PubSub. number and advance copy an id field by field: loading it as a whole
// would stall on the preceding store to Ms, which costs 10 ns per message.
func (s *sequence) number(e *Entry) {
	e.ID.Ms, e.ID.Seq, e.marker = s.newest.Ms+1, s.newest.Seq&math.MaxUint32, s.marker
}

// skip counts a message that is not an entry.
func (s *sequence) skip() {
	s.newest.Ms++
	s.newest.Seq &= math.MaxUint32
}

// numberGap assigns the next id to a gap that only this hub has, and which therefore does not count as a message (R5).
func (s *sequence) numberGap(e *Entry) {
	e.ID.Ms, e.ID.Seq, e.marker = s.newest.Ms, s.newest.Seq&^math.MaxUint32+gapUnit+uint64(s.marker.ordinal), s.marker
}

// begin begins a generation of a PubSub. The next entry is the gap that announces it (R4).
func (s *sequence) begin() {
	s.markers.begin(s.newest.Ms)
	s.marker = s.markers.own
}

// mark makes later ids count from a marker. With missed, it lies behind the gap that is added next: ids that count from the
// marker include the gap.
func (s *sequence) mark(name string, now time.Duration, missed bool) {
	at := s.newest
	if missed {
		at.Seq += gapUnit
	}
	if m := s.markers.add(name, at, now); m != nil {
		m.missed, s.marker = missed, m
		s.newest.Seq = s.newest.Seq&^math.MaxUint32 | uint64(m.ordinal)
	}
}

// addSuffix makes the text of the newest id have a suffix, so that it is known to be from this hub.
func (s *sequence) addSuffix() {
	if !s.marker.hasSuffix(s.newest) {
		s.newest.Seq += gapUnit
	}
}

// announcement returns the ordinal of the newest marker. If this generation does not have one, it is that of the next one.
func (s *sequence) announcement() uint32 {
	if s.marker.ordinal == 0 {
		return s.markers.newest + 1
	}
	return s.marker.ordinal
}

// advance moves the sequence to an entry.
func (s *sequence) advance(e *Entry) { s.newest.Ms, s.newest.Seq = e.ID.Ms, e.ID.Seq }

// previous returns the last position before an entry.
func (s *sequence) previous(id ID) ID {
	if s.markers == nil {
		return id.Previous()
	}
	if id.Seq >= gapUnit {
		id.Seq -= gapUnit
	} else {
		id.Ms--
	}
	return id
}

// markerOf returns the marker that the text of an id counts from; nil with a StreamFeed.
func (s *sequence) markerOf(id ID) *marker {
	if s.markers == nil {
		return nil
	}
	return s.markers.of(id)
}

// messageID returns the id of the message of a PubSub with a number.
func (s *sequence) messageID(message uint64) ID {
	return ID{Ms: message, Seq: uint64(s.markers.before(message).ordinal)}
}

// await records a client that starts at an id later than the newest entry.
func (s *sequence) await(c *Client) {
	if s.newest.before(c.queueStart) {
		s.early = append(s.early, c)
	}
}

// reached removes and returns the early clients whose id the sequence reaches when it moves to id.
func (s *sequence) reached(id ID) (clients []*Client) {
	if len(s.early) == 0 {
		return nil
	}
	still := s.early[:0]
	for _, c := range s.early {
		if id.before(c.queueStart) {
			still = append(still, c)
		} else {
			clients = append(clients, c)
		}
	}
	clear(s.early[len(still):])
	s.early = still
	return clients
}

// reset moves the sequence backwards.
func (s *sequence) reset(to ID) {
	s.newest, s.early = to, nil
	s.resets++
}
