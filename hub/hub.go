package hub

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"usercast/internal/revocation"
)

// Errors of Register. All are temporary: the client may retry later.
var (
	ErrFull      = errors.New("stream limit reached")
	ErrUserLimit = errors.New("stream limit for this user reached")
	ErrDraining  = errors.New("the hub is stopping")
)

// A Hub routes messages to clients. It is a part of a PubSub or a StreamFeed. All methods are
// safe for concurrent use.
type Hub struct {
	// Immutable after New.
	cfg  Config
	born time.Time

	count        counters
	disconnected *revocation.Tracker
	goroutines   sync.WaitGroup
	refusing     atomic.Bool  // no more clients; set with mu held
	clientCount  atomic.Int64 // len(clients); set with mu held

	// Guarded by mu. Each type says what it owns.
	mu         sync.Mutex
	seq        sequence
	owners     owners
	clients    []*Client
	audience   audience
	history    history
	ring       *ring // that of a userHistory, otherwise nil
	broadcasts broadcasts
	gaps       gapSpread
	budget     budget
	taps       taps
	arrivals   arrivals
	waiting    waiting // only with a PubSub
	doubts     doubts  // only with a PubSub
}

// newHub returns a hub without a history, which the caller sets.
func newHub(cfg Config) *Hub {
	cfg = cfg.withDefaults()
	h := &Hub{cfg: cfg, born: time.Now(), disconnected: revocation.New(0)}
	h.broadcasts.hub = h
	h.gaps = gapSpread{hub: h, max: cfg.GapSpread}
	h.budget.limit = cfg.QueueTotalBytes
	return h
}

// now returns the time since born.
func (h *Hub) now() time.Duration { return time.Since(h.born) }

// timeOf is the opposite of now. It uses the current wall clock: it changes if that clock is set, but time.Since of it does not.
func (h *Hub) timeOf(sinceBorn time.Duration) time.Time {
	now := time.Now()
	return now.Add(sinceBorn - now.Sub(h.born))
}

// BroadcastUser returns the user whose messages reach all clients; "" if broadcasts are disabled.
func (h *Hub) BroadcastUser() string { return h.cfg.BroadcastUser }

func (h *Hub) isBroadcast(to Recipient) bool {
	return !to.Group && to.Name == h.cfg.BroadcastUser && to.Name != ""
}

// AppendID appends the text of an id of this hub to dst, "unknown" for UnknownID. Text that a PubSub gave to an id may
// differ from what it gave before; both denote the same place.
func (h *Hub) AppendID(dst []byte, id ID) []byte {
	e := Entry{ID: id}
	h.mu.Lock()
	e.marker = h.seq.markerOf(id)
	h.mu.Unlock()
	return e.AppendID(dst)
}

// Position returns the id of the current position. From now on, the entries of the user are kept as if a client of the
// user had just ended: a page that the app renders can resume from the id, and misses nothing that is published after the
// call. Entries of groups are covered as far as they are kept.
//
// ok is false if other hubs do not know the id: a PubSub has not received a marker in this generation, or a
// StreamFeed has not been loaded. Then the id of a PubSub is valid at this hub only, and that of a StreamFeed is invalid.
func (h *Hub) Position(user string) (id string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ok = h.history.hold(User(user))
	e := Entry{ID: h.seq.newest, marker: h.seq.markerOf(h.seq.newest)}
	return string(e.AppendID(nil)), ok
}

// Register returns a new client. If it resumes, Take first returns what it has missed since its
// id, and then all later entries. The error is ErrDraining, ErrFull or ErrUserLimit.
func (h *Hub) Register(o Options) (*Client, error) {
	c := &Client{
		hub:      h,
		named:    o.Named,
		consumer: o.Consumer,
		topics:   newTopicSet(o.Topics),
		since:    h.now(),
		activity: awake,
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.owners.get(User(o.User))
	switch {
	case h.refusing.Load():
		return nil, ErrDraining
	case len(h.clients) >= h.cfg.MaxClients:
		return nil, ErrFull
	case u != nil && len(u.clients) >= h.cfg.MaxClientsPerUser:
		return nil, ErrUserLimit
	}
	origin := OriginOtherHub
	if u != nil && (len(u.clients) > 0 || u.past.retained != nil) {
		origin = OriginThisHub
	}
	h.join(c, o.User, o.Groups)
	c.index, c.lastBroadcast = int32(len(h.clients)), h.broadcasts.newest
	h.clients = append(h.clients, c)
	h.clientCount.Store(int64(len(h.clients)))
	h.count.connects.Add(1)
	c.opening = h.history.begin(c, o.Resume)
	switch {
	case o.Resume == "":
	case c.replay == nil:
		h.count.resumes[origin].Add(1)
	default:
		c.replay.origin = origin
	}
	if c.isLive() {
		h.audience.add(c)
	}
	return c, nil
}

// add stores the next entry of the sequence in the history, routes it, and advances the sequence. h.mu is
// held.
func (h *Hub) add(to Recipient, e *Entry) (n int) {
	toAll := h.isBroadcast(to)
	if len(h.taps) > 0 {
		h.taps.add(to, toAll, e)
	}
	if toAll {
		e.time()
		h.history.addForAll(*e, false)
		n = h.broadcasts.add(e, scope{})
	} else {
		hash := hashOf(to.Name)
		o := h.owners.lookup(hash, to)
		if o == nil {
			o = h.history.owner(to)
		}
		if o != nil {
			if h.history.isTimed() {
				e.time()
			}
			h.history.add(o, *e)
			if to.Group && h.inParts(o, e) {
				n = h.broadcasts.add(e, scope{group: o})
			} else {
				n = h.route(o.clients, e)
			}
		}
		if h.ring != nil && (o == nil || len(o.clients) == 0) { // or routing has ended the last one
			h.ring.append(hash, to, e)
		}
	}
	h.seq.advance(e)
	return n
}

// inParts reports whether an entry for a group is distributed like a broadcast: if the group is large, and also if the entry
// is a gap, so that the pages of the members do not all fetch their state at the same time.
func (h *Hub) inParts(group *owner, e *Entry) bool {
	return len(group.clients) > h.cfg.FanOut || e.Gap != 0
}

// makeRoom is called before an entry is numbered: see broadcasts.makeRoom. Only publishers of broadcasts, and of entries
// for groups that are distributed like these, wait.
func (h *Hub) makeRoom(to Recipient, e *Entry) {
	if !h.broadcasts.isFull() {
		return
	}
	o := h.owners.get(to)
	if to.Group && o != nil && h.inParts(o, e) || h.isBroadcast(to) {
		h.broadcasts.makeRoom()
	}
}

// addForAll is add for a gap that concerns all clients, whatever their topics.
func (h *Hub) addForAll(e *Entry) {
	h.taps.add(Recipient{}, true, e)
	e.time()
	h.history.addForAll(*e, true)
	h.broadcasts.add(e, scope{allTopics: true})
	h.seq.advance(e)
}

// route enqueues e for those clients whose topic filter accepts it, encoded at most once per variant.
// h.mu is held.
func (h *Hub) route(clients []*Client, e *Entry) (n int) {
	var frames [2]*Frame                     // plain and named
	for i := len(clients) - 1; i >= 0; i-- { // backwards: enqueue may remove the client
		c := clients[i]
		if !c.wants(e.Topic) || !c.accepts(e.ID) {
			continue
		}
		v := c.variant(*e)
		if frames[v] == nil {
			frames[v] = h.encode(e, v == 1)
		}
		if h.enqueue(c, frames[v], false) {
			n++
		}
	}
	if n > 0 {
		h.shed()
	}
	return n
}

func (h *Hub) encode(e *Entry, named bool) *Frame {
	return &Frame{Wire: h.cfg.Encode(nil, *e, named), ID: e.ID, Gap: e.Gap, Taken: e.time()}
}

// enqueue adds f to the queue of c, or ends the client if its queue is full.
func (h *Hub) enqueue(c *Client, f *Frame, noWake bool) bool {
	if h.broadcasts.isBehind(c) {
		if h.broadcasts.catchUp(c); !c.isRegistered() {
			return false
		}
	}
	if c.enqueue(f, noWake) {
		return true
	}
	h.end(c, ReasonSlow, false)
	return false
}

// shed ends the clients with the fullest queues if all queues together exceed the budget.
func (h *Hub) shed() {
	for _, c := range h.budget.exceeding(h.count.bytes.Load(), h.clients) {
		h.end(c, ReasonSlow, false)
	}
}

// end removes the client and records the reason. h.mu is held.
func (h *Hub) end(c *Client, reason Reason, graceful bool) {
	if c.isRegistered() {
		h.broadcasts.catchUp(c)
	}
	if c.isRegistered() { // otherwise catchUp has ended it
		h.remove(c)
		h.count.disconnects[reason].Add(1)
	} else if graceful {
		return
	}
	c.stop(reason, graceful)
}

func (h *Hub) remove(c *Client) {
	last := len(h.clients) - 1
	h.clients[c.index] = h.clients[last]
	h.clients[c.index].index = c.index
	h.clients[last] = nil
	h.clients = shrink(h.clients[:last])
	h.clientCount.Store(int64(last))
	c.index = -1
	h.audience.remove(c)
	h.leave(c)
}

// shrink releases memory after the number of clients has dropped sharply.
func shrink(clients []*Client) []*Client {
	if n := len(clients); cap(clients) >= 1024 && n < cap(clients)/4 {
		return append(make([]*Client, 0, 2*n), clients...)
	}
	return clients
}

// yield releases a lock for goroutines that wait for it, and locks it again.
func yield(mu *sync.Mutex) {
	mu.Unlock()
	runtime.Gosched()
	mu.Lock()
}

// ClientsOf returns the clients that receive messages to a recipient, except broadcasts.
func (h *Hub) ClientsOf(to Recipient) []*Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o := h.owners.get(to); o != nil {
		return slices.Clone(o.clients)
	}
	return nil
}

// Disconnect ends all clients of a user after their queued frames, and returns their number.
func (h *Hub) Disconnect(user string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disconnected.Add(user) // before the clients end: a client that registers afterwards must see it
	u := h.owners.get(User(user))
	if u == nil {
		return 0
	}
	clients := slices.Clone(u.clients)
	for _, c := range clients {
		h.end(c, ReasonKicked, true)
	}
	return len(clients)
}

// Disconnections returns how often Disconnect was called, as a point in time for Disconnected. It does
// not lock.
func (h *Hub) Disconnections() uint64 { return h.disconnected.Count() }

// Disconnected reports whether a user was disconnected after Disconnections returned before. Then an
// authentication that began earlier may be outdated. In rare cases it returns true because of another
// user. It does not lock.
func (h *Hub) Disconnected(user string, before uint64) bool {
	return h.disconnected.Since(user, before)
}

// Refusal returns the error that Register would currently return for any user, ErrDraining or ErrFull,
// or nil. With an error, it is not necessary to authenticate a client. It does not lock.
func (h *Hub) Refusal() error {
	switch {
	case h.refusing.Load():
		return ErrDraining
	case h.clientCount.Load() >= int64(h.cfg.MaxClients):
		return ErrFull
	}
	return nil
}

// Refuse makes Register return ErrDraining permanently.
func (h *Hub) Refuse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refusing.Store(true)
}

// Finish ends every client with a reason, after its queued frames, in random order and evenly over the
// given time. It blocks until all have ended. It does not end clients that register meanwhile, so call
// Refuse first.
func (h *Hub) Finish(reason Reason, over time.Duration) {
	h.mu.Lock()
	clients := slices.Clone(h.clients)
	h.mu.Unlock()
	rand.Shuffle(len(clients), func(i, j int) { clients[i], clients[j] = clients[j], clients[i] })

	tick := time.NewTicker(spreadStep)
	defer tick.Stop()
	for start, finished := time.Now(), 0; ; {
		n := due(len(clients), time.Since(start), over)
		for _, c := range clients[finished:n] {
			c.Finish(reason)
		}
		finished = n
		if finished == len(clients) || h.clientCount.Load() == 0 {
			return
		}
		<-tick.C
	}
}

// Close stops the hub's timers and waits for its goroutine. Pending broadcasts are enqueued immediately,
// gaps are not spread any more, and old entries stay in the history. It does not end clients.
func (h *Hub) Close() {
	defer h.goroutines.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broadcasts.close()
	h.gaps.close()
	h.history.close()
}
