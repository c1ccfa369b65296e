package hub

// A PubSub is a hub for messages without ids that are not stored elsewhere: it numbers them and keeps the newest ones
// of each user. All methods are safe for concurrent use.
type PubSub struct {
	*Hub
	numbers *sequence // of Hub
	boot    string
}

// NewPubSub returns a hub without clients.
func NewPubSub(cfg Config) *PubSub {
	h := newHub(cfg)
	h.seq.marker = &marker{name: newBoot()}
	users := newUserHistory(h)
	h.history, h.ring = users, &users.ring
	return &PubSub{Hub: h, numbers: &h.seq, boot: h.seq.marker.name}
}

// Boot returns the random name of this process in its ids: a letter, followed by 7 characters of a–z and 2–7.
func (p *PubSub) Boot() string { return p.boot }

// Publish routes one message and returns the number of clients that it was enqueued for. For a broadcast that is
// distributed in parts (Config.FanOut), it returns 1 if any client receives it. It never waits for a client, and does
// not allocate for a user without clients and history.
func (p *PubSub) Publish(user, topic, payload string) int {
	return p.publish(user, &Entry{Topic: topic, Payload: payload})
}

// GapFor announces a gap to the clients that a message to this user and topic
// would have reached.
func (p *PubSub) GapFor(user, topic string, reason Gap) {
	p.publish(user, &Entry{Topic: topic, Gap: reason})
}

func (p *PubSub) publish(user string, e *Entry) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isBroadcast(user) {
		p.broadcasts.makeRoom() // before the entry is numbered, because others may be published meanwhile
	}
	p.numbers.number(e)
	return p.add(user, e)
}

// GapForAll announces a gap to every client: before its next message, or within Config.GapSpread if no message
// arrives. The spread prevents all pages from fetching their state at the same time.
func (p *PubSub) GapForAll(reason Gap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broadcasts.makeRoom()
	e := &Entry{Gap: reason}
	p.numbers.number(e)
	p.addForAll(e)
}

// The methods below make up one order of events with Publish and GapFor: the goroutine that reads Redis calls them.

// Skip counts a message that is not routed, because the name of its channel is malformed.
func (p *PubSub) Skip() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.numbers.newest.Ms++
}

// Begin begins a generation: ids that count from markers of the previous one end here, and a gap is announced to all
// clients.
func (p *PubSub) Begin() { p.GapForAll(GapRedisReconnect) }

// Mark makes later ids count from a marker that was just received in this generation. A name that is known already is
// ignored.
func (p *PubSub) Mark(name MarkerName) {}

// AwaitPlaces makes clients wait whose id counts from an unknown marker, or further than this hub has: the hub may only
// be behind. Without it they receive unknown-id at once. wake is called with the hub's lock held when a client begins
// to wait.
func (p *PubSub) AwaitPlaces(wake func()) {}

// Waiting returns a ticket for all clients that wait now, or 0.
func (p *PubSub) Waiting() (ticket uint64) { return 0 }

// Received says that everything has been received that was published before Waiting returned the ticket. It ends the
// wait of its clients, except those with an unknown marker, which unknown reports: they wait for Confirmed.
func (p *PubSub) Received(ticket uint64) (unknown bool) { return false }

// Confirmed says that the subscription is still to the server to which new connections go.
func (p *PubSub) Confirmed(ticket uint64) {}
