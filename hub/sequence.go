package hub

// A sequence is the order of all that a hub's clients receive. It is guarded by Hub.mu.
type sequence struct {
	newest ID     // entry; moves on once the entry was enqueued for all clients
	resets uint64 // how often it went backwards
	// Clients whose id is later than newest, because they come from a hub that has read more.
	early []*Client
}

// next is the id of the next entry, if the hub numbers them.
func (s *sequence) next() ID {
	id := s.newest
	id.Seq++
	return id
}

// parse reads an id that a client sent; known is false if it is not an id of this sequence.
func (s *sequence) parse(text string) (id ID, known bool) {
	id, ok := parseID(text)
	return id, ok && id.Boot == s.newest.Boot
}

// await remembers a client that starts at an id which is later than the newest entry.
func (s *sequence) await(c *Client) {
	if s.newest.before(c.queueStart) {
		s.early = append(s.early, c)
	}
}

// reached returns the clients that are not early any more once the sequence has moved on to id.
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
