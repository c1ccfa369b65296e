package hub

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"usercast/internal/revocation"
)

// Why Register refuses. Each is a "not now": the client may come back.
var (
	ErrFull      = errors.New("the hub holds as many streams as it may")
	ErrUserLimit = errors.New("this user has as many streams as one may")
	ErrDraining  = errors.New("the hub is stopping")
)

// gapRate is how many idle clients a second hear of a gap, until Config.GapSpread
// is reached: each of them is a page that fetches its state anew from the app.
const gapRate = 100

// A Hub routes messages to clients. Make one as a part of a PubSub or a StreamFeed. All methods are safe for
// concurrent use.
type Hub struct {
	// Immutable after New.
	cfg   Config
	query func(*Query) // nil without a log
	boot  string       // of all ids; "" with a log
	born  time.Time

	count        counters
	disconnected *revocation.Tracker
	refusing     atomic.Bool  // no more clients; set with mu held
	taken        atomic.Int64 // len(clients); set with mu held

	// Guarded by mu.
	mu        sync.Mutex
	pos       point // the newest entry; moves on once the entry was enqueued everywhere
	users     table[*user]
	present   int       // users with a client
	clients   []*Client // all of them, for broadcasts
	audience  audience
	closed    bool
	spread    *spread   // of the newest gap that was spread
	spreading bool      // it is under way
	another   bool      // gap since that began
	shedAt    time.Time // when shed last ended somebody
	taps      []*Tap    // mostly none

	// Broadcasts that some clients have yet to be handed: see broadcast.
	broadcasts uint64       // how many there ever were
	underWay   []*broadcast // the newest of these
	round      uint64       // the newest of those that are being handed out
	unvisited  int          // clients that this round has yet to come to: the first ones
	fanning    bool         // fanOut is at work
	goroutines sync.WaitGroup

	// The history: see keep.
	everybody      user // broadcasts, and gaps that concern all
	oldest, newest *kept
	keptEntries    int
	keptBytes      int64
	departures     departures
	sweeper        *time.Timer
	sweeping       bool // sweeper is set

	// With a log.
	loaded     bool
	floor      point        // all later entries are kept
	ids        deque[point] // of all that is kept
	reset      *point       // where the log last went backwards; nil: it has not
	generation uint64       // how often it went backwards
	ahead      []*Client    // those with an id that is later than pos: see overtake
}

// newHub makes the part that both forms have in common. query is nil for PubSub.
func newHub(cfg Config, query func(*Query)) *Hub {
	h := &Hub{cfg: cfg.withDefaults(), query: query, boot: newBoot(), born: time.Now(), disconnected: revocation.New(0)}
	if h.isLog() {
		h.boot = ""
	}
	return h
}

// BroadcastUser is the user whose messages reach everybody, "" if there is none.
func (h *Hub) BroadcastUser() string { return h.cfg.BroadcastUser }

// Register makes a client: from now on its messages are queued, once those that it
// missed since the id it resumes with have been taken. The error is ErrDraining,
// ErrFull or ErrUserLimit.
func (h *Hub) Register(o Options) (*Client, error) {
	c := &Client{
		hub:      h,
		named:    o.Named,
		consumer: o.Consumer,
		topics:   newTopicSet(o.Topics),
		since:    time.Since(h.born),
		woken:    true,
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.users.get(o.User)
	switch {
	case h.refusing.Load():
		return nil, ErrDraining
	case len(h.clients) >= h.cfg.MaxClients:
		return nil, ErrFull
	case known != nil && len(known.clients) >= h.cfg.MaxClientsPerUser:
		return nil, ErrUserLimit
	}
	h.arrive(c, o.User)
	c.index, c.heard = len(h.clients), h.broadcasts
	h.clients = append(h.clients, c)
	h.taken.Store(int64(len(h.clients)))
	h.count.connects.Add(1)
	opening := h.begin(c, o.Resume)
	c.opening, c.unknown = opening.point(), opening == UnknownID
	c.replaying = c.replay != nil
	if c.replay == nil || c.replay.live {
		h.audience.add(c)
	}
	return c, nil
}

// number numbers an entry, unless a log has done it.
func (h *Hub) number(e *Entry) point {
	if !h.isLog() {
		e.ID = h.id(point{0, h.pos.seq + 1})
	}
	return e.ID.point()
}

// add keeps the newest entry, routes it, and moves the sequence on. h.mu is held, but
// before the entry is numbered it may be given to others for a moment.
func (h *Hub) add(name string, e Entry) (n int) {
	toAll := name == h.cfg.BroadcastUser && name != ""
	if toAll {
		h.makeRoom()
	}
	at := h.number(&e)
	h.overtake(at, false)
	if len(h.taps) > 0 {
		h.tell(name, toAll, e)
	}
	// Kept before it is routed: routing can end the last client of u, and a user of whom
	// nothing is kept is forgotten then. After route, u may be no user of the hub.
	if toAll {
		h.keep(&h.everybody, at, &e, false)
		n = h.broadcast(&e, false)
	} else if u := h.owner(name); u != nil {
		h.keep(u, at, &e, false)
		n = h.route(u.clients, &e)
	}
	if h.isLog() && !h.keeps() { // it may have been somebody's who comes later
		h.floor = at
	}
	h.pos = at
	return n
}

// owner is the user whose history an entry belongs to; nil: it is not kept. With
// a log, whoever comes later may ask for it.
func (h *Hub) owner(name string) *user {
	u := h.users.get(name)
	if u == nil && h.isLog() && h.keeps() {
		u = &user{name: name}
		h.users.set(name, u)
		h.charge(u, true)
	}
	return u
}

// addForAll is add for a gap that concerns everybody, whatever their topics.
func (h *Hub) addForAll(e Entry) {
	h.makeRoom()
	at := h.number(&e)
	h.overtake(at, true)
	h.tell("", true, e)
	h.keep(&h.everybody, at, &e, true)
	h.broadcast(&e, true)
	h.pos = at
}

// handAll hands a gap to every client, forAll whatever their topics, and sees to
// it that those hear of it soon who get nothing else.
func (h *Hub) handAll(e *Entry, forAll bool) {
	f := h.encode(e, false)
	for i := len(h.clients) - 1; i >= 0; i-- { // backwards: hand may take the client out
		if c := h.clients[i]; c.hears(e.ID) && (forAll || c.wants(e.Topic)) {
			h.hand(c, f, true)
		}
	}
	h.shed()
	h.spreadGap()
}

// spreadGap nudges all clients over a time. While an earlier gap is on its way, it
// does so afterwards: gaps that come one after the other must not put each
// other off.
func (h *Hub) spreadGap() {
	if h.another = h.spreading; h.another || h.closed || len(h.clients) == 0 {
		return
	}
	h.spreading = true
	over := min(h.cfg.GapSpread, time.Duration(len(h.clients))*time.Second/gapRate)
	h.spread = spreadNudges(slices.Clone(h.clients), over, h.gapWasSpread)
}

func (h *Hub) gapWasSpread() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spreading = false
	if h.another && !h.closed {
		h.spreadGap()
	}
}

// route hands e to those of the clients that want its topic, encoded at most
// once per variant. h.mu is held.
func (h *Hub) route(clients []*Client, e *Entry) (n int) {
	var plain, named *Frame
	for i := len(clients) - 1; i >= 0; i-- { // backwards: hand may take the client out
		c := clients[i]
		if !c.wants(e.Topic) || !c.hears(e.ID) {
			continue
		}
		f := &plain
		if c.named && e.Gap == 0 {
			f = &named
		}
		if *f == nil {
			*f = h.encode(e, f == &named)
		}
		if h.hand(c, *f, false) {
			n++
		}
	}
	if n > 0 {
		h.shed()
	}
	return n
}

// hand enqueues f, or ends the client whose queue is full.
func (h *Hub) hand(c *Client, f *Frame, quietly bool) bool {
	if c.heard != h.broadcasts {
		if h.catchUp(c); c.index < 0 {
			return false
		}
	}
	if c.enqueue(f, quietly) {
		return true
	}
	h.end(c, ReasonSlow, false)
	return false
}

// shedPause is how long what shed has ended is given to let go of its memory: a
// writer may be in the middle of a system call.
const shedPause = 100 * time.Millisecond

// shed closes the fullest queues when all frames that anybody holds are past the
// bound together. Healthy clients that share one large frame are not the reason:
// it counts once.
func (h *Hub) shed() {
	excess := h.count.bytes.Load() - h.cfg.QueueTotalBytes
	if excess <= 0 || time.Since(h.shedAt) < shedPause {
		return
	}
	h.shedAt = time.Now()
	type holding struct {
		client *Client
		bytes  int
	}
	var all []holding
	for _, c := range h.clients {
		if n := c.held(); n > 0 {
			all = append(all, holding{c, n})
		}
	}
	slices.SortFunc(all, func(a, b holding) int { return b.bytes - a.bytes })
	for _, fullest := range all {
		if excess <= 0 {
			return
		}
		h.end(fullest.client, ReasonSlow, false)
		excess -= int64(fullest.bytes)
	}
}

func (h *Hub) encode(e *Entry, named bool) *Frame {
	return &Frame{Wire: h.cfg.Encode(nil, *e, named), ID: e.ID, Gap: e.Gap, Taken: e.time()}
}

// end takes the client out and records the reason. h.mu is held.
func (h *Hub) end(c *Client, reason Reason, politely bool) {
	if c.index >= 0 {
		h.catchUp(c)
		if c.index < 0 { // that has ended it
			h.end(c, reason, politely)
			return
		}
		h.remove(c)
		h.count.disconnects[reason].Add(1)
	} else if politely {
		return
	}
	c.stop(reason, politely)
}

func (h *Hub) remove(c *Client) {
	last := len(h.clients) - 1
	h.clients[c.index] = h.clients[last]
	h.clients[c.index].index = c.index
	h.clients[last] = nil
	h.clients = h.clients[:last]
	if cap(h.clients) >= 1024 && last < cap(h.clients)/4 { // the others have left for good
		h.clients = append(make([]*Client, 0, 2*last), h.clients...)
	}
	h.taken.Store(int64(last))
	c.index = -1
	h.audience.remove(c)
	h.depart(c)
}

// ClientsOf are the clients of a user.
func (h *Hub) ClientsOf(user string) []*Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.users.get(user); u != nil {
		return slices.Clone(u.clients)
	}
	return nil
}

// Disconnect ends all clients of a user, politely, and returns how many there were.
func (h *Hub) Disconnect(user string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disconnected.Add(user) // before they are ended: who registers after that must see it
	u := h.users.get(user)
	if u == nil {
		return 0
	}
	clients := slices.Clone(u.clients)
	for _, c := range clients {
		h.end(c, ReasonKicked, true)
	}
	return len(clients)
}

// Disconnections is how often Disconnect was called: a point in time for Disconnected. It
// takes no lock.
func (h *Hub) Disconnections() uint64 { return h.disconnected.Count() }

// Disconnected reports whether a user was disconnected since Disconnections returned
// before: who was let in meanwhile may have been let in on what was true then. Once in a
// while it reports so of another user's disconnection. It takes no lock.
func (h *Hub) Disconnected(user string, before uint64) bool {
	return h.disconnected.Since(user, before)
}

// Refusal is what Register would answer to anybody just now, ErrDraining or ErrFull: who
// has to find out first who is asking need not. It takes no lock.
func (h *Hub) Refusal() error {
	switch {
	case h.refusing.Load():
		return ErrDraining
	case h.taken.Load() >= int64(h.cfg.MaxClients):
		return ErrFull
	}
	return nil
}

// Refuse makes Register answer ErrDraining from now on.
func (h *Hub) Refuse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refusing.Store(true)
}

// Finish ends every client with a reason, politely, in random order and evenly
// over the given time. It returns when the last one was told or has left. Clients
// that register meanwhile are not among them: call Refuse first.
func (h *Hub) Finish(reason Reason, over time.Duration) {
	h.mu.Lock()
	clients := slices.Clone(h.clients)
	h.mu.Unlock()
	rand.Shuffle(len(clients), func(i, j int) { clients[i], clients[j] = clients[j], clients[i] })

	tick := time.NewTicker(spreadStep)
	defer tick.Stop()
	for start, told := time.Now(), 0; ; {
		n := due(len(clients), time.Since(start), over)
		for _, c := range clients[told:n] {
			c.Finish(reason)
		}
		told = n
		if told == len(clients) || h.empty() {
			return
		}
		<-tick.C
	}
}

func (h *Hub) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.clients) == 0
}

// Close stops what is still spread over time, and forgets nothing any more. Broadcasts
// are handed out at once. Clients are not ended.
func (h *Hub) Close() {
	defer h.goroutines.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.clients) - 1; i >= 0; i-- { // backwards: one may be taken out
		h.catchUp(h.clients[i])
	}
	h.heardUpTo(h.broadcasts)
	h.closed = true
	h.spread.stop()
	if h.sweeper != nil {
		h.sweeper.Stop()
	}
}
