package hub

import "time"

// A PubSub is a hub for messages without ids that are not stored elsewhere: it numbers them and keeps the newest ones
// of each user. All methods are safe for concurrent use.
type PubSub struct {
	*Hub
	boot string
}

// NewPubSub returns a hub without clients.
func NewPubSub(cfg Config) *PubSub {
	h := newHub(cfg)
	boot := newBoot()
	h.seq.markers = newMarkers(boot, h.cfg.MarkerAge)
	h.seq.marker = h.seq.markers.own
	users := newUserHistory(h)
	h.history, h.ring = users, &users.ring
	return &PubSub{Hub: h, boot: boot}
}

// Boot returns the random name of this process in its ids: a letter, followed by 7 characters of a–z and 2–7.
func (p *PubSub) Boot() string { return p.boot }

// Publish routes one message and returns the number of clients that it was enqueued for. For a broadcast, or a message
// to a group, that is distributed in parts (Config.FanOut), it returns 1 if any client may receive it. It never waits for
// a client, and does not allocate for a recipient without clients and history.
func (p *PubSub) Publish(to Recipient, topic, payload string) int {
	return p.publish(to, &Entry{Topic: topic, Payload: payload})
}

// GapFor announces a gap in place of a message, to the clients that it would have reached.
func (p *PubSub) GapFor(to Recipient, topic string, reason Gap) {
	p.publish(to, &Entry{Topic: topic, Gap: reason})
}

func (p *PubSub) publish(to Recipient, e *Entry) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.makeRoom(to, e) // before the entry is numbered, because others may be published meanwhile
	p.seq.number(e)
	return p.add(to, e)
}

// GapForAll announces a gap to every client: before its next message, or within Config.GapSpread if no message
// arrives. The spread prevents all pages from fetching their state at the same time. Such a gap does not count as a message
// (R5).
func (p *PubSub) GapForAll(reason Gap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broadcasts.makeRoom()
	p.addGapForAll(reason)
}

// addGapForAll adds a gap that only this hub has.
func (p *PubSub) addGapForAll(reason Gap) {
	e := &Entry{Gap: reason}
	p.seq.numberGap(e)
	p.addForAll(e)
}

// The methods below make up one order of events with Publish and GapFor: the goroutine that reads Redis calls them.

// Skip counts a message that is not routed: hubs count all messages that they receive, so that the nth message after a marker
// is the same one for all of them (R2).
func (p *PubSub) Skip() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq.skip()
}

// Begin begins a generation: ids that count from markers of the previous one end here, and a gap is announced to all
// clients (R4). That also applies to the first generation, because a client can have opened before it.
func (p *PubSub) Begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broadcasts.makeRoom()
	p.seq.begin()
	p.doubts.begin(p.seq.newest.Ms)
	p.addGapForAll(GapRedisReconnect)
	p.waiting.begin()
}

// Mark makes later ids count from a marker that was just received in this generation. A name that is known already is
// ignored. After Miss, the gap missed is announced to all clients in front of the marker: ids that count from it are right by
// themselves (R11).
func (p *PubSub) Mark(name MarkerName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	missed := p.doubts.announce
	if missed {
		p.broadcasts.makeRoom()
	}
	p.seq.mark(name.String(), time.Since(p.born), missed)
	if missed {
		p.doubts.announce = false
		p.addGapForAll(GapMissed)
	}
}
