package hub

// A sequence is the order of all that a hub's clients receive. It is guarded by Hub.mu.
type sequence struct {
	newest ID     // entry; moves on once the entry was enqueued for all clients
	resets uint64 // how often it went backwards
	// Clients whose id is later than newest, because they come from a hub that has read more.
	early []*Client
}

// number gives an entry the next id, if the hub numbers them. It and advance copy an id by its fields: the processor
// would have to wait for the newest Seq before it could load the whole, 10 ns for each message.
func (s *sequence) number(e *Entry) {
	e.ID.Boot, e.ID.Ms, e.ID.Seq = s.newest.Boot, s.newest.Ms, s.newest.Seq+1
}

// advance moves the sequence on to an entry.
func (s *sequence) advance(e *Entry) {
	s.newest.Boot, s.newest.Ms, s.newest.Seq = e.ID.Boot, e.ID.Ms, e.ID.Seq
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
