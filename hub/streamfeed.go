package hub

import "iter"

// A StreamFeed is a hub for the entries of a log, such as a Redis stream. The log numbers the entries and
// keeps them for longer than the hub, which receives them with Load and Append. All methods are safe for
// concurrent use, except Load, Append, Lose and Reset, which only the goroutine that reads the log may
// call.
type StreamFeed struct {
	*Hub
	window *window
}

// NewStreamFeed returns a hub without clients. The hub calls query if a client's replay begins before the
// oldest entry of the hub. query must return immediately, and Query.Answer must be called later.
func NewStreamFeed(cfg Config, query func(*Query)) *StreamFeed {
	f := &StreamFeed{Hub: newHub(cfg)}
	f.window = newWindow(f.Hub, query)
	f.history = f.window
	return f
}

// Load fills the window with the newest entries of the log, oldest first: all that are later than after, up
// to newest. Each has a recipient; the zero value means that the entry has only an id. Call Load once, before the first
// Append. Clients that registered before Load wait for it.
func (f *StreamFeed) Load(after, newest ID, entries iter.Seq2[Recipient, Entry]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.window.load(after)
	for to, e := range entries {
		switch {
		case to == (Recipient{}):
			f.window.skip(e)
		case f.isBroadcast(to):
			f.window.addForAll(e, false)
		default:
			o := f.owners.get(to)
			if o == nil {
				o = f.window.owner(to)
			}
			f.window.add(o, e)
		}
	}
	f.seq.newest = newest
	for _, c := range f.clients {
		if c.replay != nil {
			f.window.beginLoaded(c.replay)
		}
	}
}

// Append routes the next entry of the log, a message or a gap in its place. It returns the number of clients that
// the entry was enqueued for, as PubSub.Publish does. With the zero Recipient, the entry has only an id.
func (f *StreamFeed) Append(to Recipient, e Entry) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if to == (Recipient{}) {
		f.reach(e.ID, false)
		f.window.skip(e)
		f.seq.newest = e.ID
		return 0
	}
	f.makeRoom(to, &e)
	f.reach(e.ID, false)
	return f.add(to, &e)
}

// Lose announces to all clients that the log has dropped entries, up to an id, before they were read.
func (f *StreamFeed) Lose(upTo ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broadcasts.makeRoom()
	f.reach(upTo, true)
	f.addForAll(&Entry{ID: upTo, Gap: GapHistoryExpired})
}

// Reset announces to all clients that the log went backwards and continues after newest. Entries that were
// read before may be missing from the log.
func (f *StreamFeed) Reset(newest ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broadcasts.distribute()
	f.window.clear(newest)
	f.seq.reset(newest)
	for _, c := range f.clients {
		c.queueStart = ID{}
		if c.replay != nil {
			c.replay.reset()
		}
	}
	e := &Entry{ID: newest, Gap: GapFeedReset}
	f.taps.add(Recipient{}, true, e)
	f.broadcasts.add(e, scope{allTopics: true})
}

// reach is called before the sequence advances to id. It handles clients that resumed from an id which the hub
// had not reached yet. If the log does not have an entry with such an id, it has lost its newest entries before
// this hub read them. The client has missed the entries that replaced them, so it receives a gap. With lost, the
// caller announces a gap to all clients instead.
func (f *StreamFeed) reach(id ID, lost bool) {
	for _, c := range f.seq.reached(id) {
		if c.isRegistered() && c.queueStart != id && !lost {
			f.enqueue(c, f.encode(&Entry{ID: id.Previous(), Gap: GapFeedReset}, false), false)
		}
	}
}
