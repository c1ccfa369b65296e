package hub

import "strings"

// A sequence is the order of all entries of a hub. It is guarded by Hub.mu.
type sequence struct {
	newest ID      // the newest entry that was routed
	marker *marker // that ids count from; nil with a StreamFeed
	resets uint64  // how often the sequence went backwards
	// early lists clients whose id is later than newest: they were connected to a hub that has read further.
	early []*Client
}

// number assigns the next id to an entry, if the hub numbers entries. number and advance copy an id field by field:
// loading it as a whole would stall on the preceding store to Ms, which costs 10 ns per message.
func (s *sequence) number(e *Entry) {
	e.ID.Ms, e.ID.Seq, e.marker = s.newest.Ms+1, 0, s.marker
}

// advance moves the sequence to an entry.
func (s *sequence) advance(e *Entry) { s.newest.Ms, s.newest.Seq = e.ID.Ms, e.ID.Seq }

// messageID returns the id of the message with a number. Only for a PubSub.
func (s *sequence) messageID(number uint64) ID { return ID{Ms: number} }

// previous returns the last position before an entry.
func (s *sequence) previous(id ID) ID {
	if s.marker == nil {
		return id.Previous()
	}
	id.Ms--
	return id
}

// parse parses an id that a client sent. known is false if it is not an id of this sequence.
func (s *sequence) parse(text string) (id ID, known bool) {
	if s.marker == nil {
		return parseID(text)
	}
	name, count, _ := strings.Cut(text, "-")
	id.Ms, known = parseNumber(count)
	return id, known && name == s.marker.name
}

// markerOf returns the marker that the text of an id counts from.
func (s *sequence) markerOf(ID) *marker { return s.marker }

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
