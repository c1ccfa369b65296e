package hub

// A PubSub is a hub for messages without ids that are not stored elsewhere: it numbers them and keeps the newest ones
// of each user. All methods are safe for concurrent use.
type PubSub struct {
	*Hub
	numbers *sequence // of Hub
}

// NewPubSub returns a hub without clients.
func NewPubSub(cfg Config) *PubSub {
	h := newHub(cfg)
	h.seq.newest.Boot = newBoot()
	h.history = newUserHistory(h)
	return &PubSub{Hub: h, numbers: &h.seq}
}

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
