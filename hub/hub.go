package hub

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Why Register refuses. Each is a "not now": the client may come back.
var (
	ErrFull      = errors.New("the hub holds as many streams as it may")
	ErrUserLimit = errors.New("this user has as many streams as one may")
	ErrDraining  = errors.New("the hub is stopping")
)

// Config is what a Hub is made of. A limit of 0 is no limit.
type Config struct {
	Encode            Encoder       // required
	BroadcastUser     string        // messages to this user reach everybody; "": nobody is that user
	QueueFrames       int           // frames waiting for one client
	QueueBytes        int           // bytes waiting for one client
	QueueGrace        time.Duration // for how long a queue may be over these two; 0: not at all
	QueueTotalBytes   int64         // bytes of the frames waiting or in flight, shared ones once; past it the fullest queue is closed
	MaxClients        int           // clients at once
	MaxClientsPerUser int           // clients of one user at once
	GapSpread         time.Duration // longest time over which a gap reaches the clients that have nothing else to get
}

// gapRate is how many idle clients a second hear of a gap, until Config.GapSpread
// is reached: each of them is a page that fetches its state anew from the app.
const gapRate = 1000

// A Hub routes messages to clients. All methods are safe for concurrent use.
type Hub struct {
	// Immutable after New.
	cfg  Config
	boot string

	// seq is the newest entry of the sequence. It is written with mu held, after
	// the entry was enqueued everywhere: see Client.Position.
	seq   atomic.Uint64
	count counters

	// Guarded by mu.
	mu       sync.Mutex
	users    map[string][]*Client
	clients  []*Client // all of them, for broadcasts
	draining bool
	spread   *spread   // the gap under way, if any
	shedAt   time.Time // when shed last ended somebody
}

// New makes a hub that nobody is connected to.
func New(cfg Config) *Hub {
	unlimited := func(n *int) {
		if *n <= 0 {
			*n = int(^uint(0) >> 1)
		}
	}
	unlimited(&cfg.QueueFrames)
	unlimited(&cfg.QueueBytes)
	unlimited(&cfg.MaxClients)
	unlimited(&cfg.MaxClientsPerUser)
	if cfg.QueueTotalBytes <= 0 {
		cfg.QueueTotalBytes = int64(^uint64(0) >> 1)
	}
	return &Hub{cfg: cfg, boot: newBoot(), users: make(map[string][]*Client)}
}

// BroadcastUser is the user whose messages reach everybody, "" if there is none.
func (h *Hub) BroadcastUser() string { return h.cfg.BroadcastUser }

// Register makes a client: from now on its messages are queued. The error is
// ErrDraining, ErrFull or ErrUserLimit.
//
// A client that resumes with an id is told of a gap unless nothing at all has
// happened since that id.
func (h *Hub) Register(o Options) (*Client, error) {
	c := &Client{
		hub:      h,
		user:     strings.Clone(o.User), // may be a part of a whole request
		topics:   cloneAll(o.Topics),
		named:    o.Named,
		consumer: o.Consumer,
		since:    time.Now(),
		woken:    true,
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	mates := h.users[c.user]
	switch {
	case h.draining:
		return nil, ErrDraining
	case len(h.clients) >= h.cfg.MaxClients:
		return nil, ErrFull
	case len(mates) >= h.cfg.MaxClientsPerUser:
		return nil, ErrUserLimit
	}
	h.users[c.user] = append(mates, c)
	c.index = len(h.clients)
	h.clients = append(h.clients, c)
	h.count.connects.Add(1)
	c.opening = h.seq.Load()
	if gap := h.missed(o.Resume); gap != 0 {
		// An entry of its own: the opening id is older than the gap, so a
		// browser that reads the one and loses the other does not come back
		// believing that it is complete.
		seq := h.seq.Load() + 1
		c.enqueue(h.encode(Entry{ID: ID{h.boot, seq}, Gap: gap}, false), false)
		h.seq.Store(seq)
	}
	return c, nil
}

// cloneAll copies a list and its strings; nil stays nil.
func cloneAll(list []string) []string {
	list = slices.Clone(list)
	for i, s := range list {
		list[i] = strings.Clone(s)
	}
	return list
}

// missed says which gap lies between an id and now; 0 if none does.
func (h *Hub) missed(resume string) Gap {
	if resume == "" {
		return 0
	}
	id, ok := parseID(resume)
	switch seq := h.seq.Load(); {
	case !ok || id.Boot != h.boot || id.Seq > seq:
		return GapUnknownID
	case id.Seq < seq:
		return GapHistoryExpired
	}
	return 0
}

// Publish routes one message and returns to how many clients it went. It
// allocates nothing when that is none.
func (h *Hub) Publish(user, topic, payload string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := Entry{ID: ID{h.boot, h.seq.Load() + 1}, Topic: topic, Payload: payload}
	n := h.route(h.receivers(user), e, false)
	h.seq.Store(e.ID.Seq)
	return n
}

// GapFor announces a gap to the clients that a message to this user and topic
// would have reached.
func (h *Hub) GapFor(user, topic string, reason Gap) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := Entry{ID: ID{h.boot, h.seq.Load() + 1}, Topic: topic, Gap: reason}
	h.route(h.receivers(user), e, false)
	h.seq.Store(e.ID.Seq)
}

// GapForAll announces a gap to every client: before its next message, or, when
// there is none, at a moment of its own within Config.GapSpread, lest all pages
// refetch at once.
func (h *Hub) GapForAll(reason Gap) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := Entry{ID: ID{h.boot, h.seq.Load() + 1}, Gap: reason}
	f := h.encode(e, false)
	for i := len(h.clients) - 1; i >= 0; i-- {
		h.hand(h.clients[i], f, true)
	}
	h.seq.Store(e.ID.Seq)
	h.shed()

	over := min(h.cfg.GapSpread, time.Duration(len(h.clients))*time.Second/gapRate)
	h.spread.stop()
	h.spread = spreadNudges(slices.Clone(h.clients), over)
}

// receivers are the clients that a message to user concerns.
func (h *Hub) receivers(user string) []*Client {
	if user == h.cfg.BroadcastUser && user != "" {
		return h.clients
	}
	return h.users[user]
}

// route hands e to those of the clients that want its topic, encoded at most
// once per variant. h.mu is held.
func (h *Hub) route(clients []*Client, e Entry, quietly bool) (n int) {
	var plain, named *Frame
	for i := len(clients) - 1; i >= 0; i-- { // backwards: hand may take the client out
		c := clients[i]
		if !c.wants(e.Topic) {
			continue
		}
		f := &plain
		if c.named && e.Gap == 0 {
			f = &named
		}
		if *f == nil {
			*f = h.encode(e, c.named)
		}
		if h.hand(c, *f, quietly) {
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
	if c.enqueue(f, quietly) {
		return true
	}
	h.end(c, ErrSlow, false)
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
		h.end(fullest.client, ErrSlow, false)
		excess -= int64(fullest.bytes)
	}
}

func (h *Hub) encode(e Entry, named bool) *Frame {
	return &Frame{Wire: h.cfg.Encode(nil, e, named), Seq: e.ID.Seq, Gap: e.Gap, Taken: time.Now()}
}

// end takes the client out and records the cause. h.mu is held.
func (h *Hub) end(c *Client, cause Cause, politely bool) {
	if c.index >= 0 {
		h.remove(c)
		h.count.disconnects[cause].Add(1)
	} else if politely {
		return
	}
	c.stop(cause, politely)
}

func (h *Hub) remove(c *Client) {
	last := len(h.clients) - 1
	h.clients[c.index] = h.clients[last]
	h.clients[c.index].index = c.index
	h.clients[last] = nil
	h.clients = h.clients[:last]
	c.index = -1

	mates := h.users[c.user]
	if len(mates) == 1 {
		delete(h.users, c.user)
		return
	}
	i := slices.Index(mates, c)
	mates[i] = mates[len(mates)-1]
	mates[len(mates)-1] = nil
	h.users[c.user] = mates[:len(mates)-1]
}

// Refuse makes Register answer ErrDraining from now on.
func (h *Hub) Refuse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
}

// Finish ends every client with a cause, politely, in random order and evenly
// over the given time. It returns when the last one was told or has left. Clients
// that register meanwhile are not among them: call Refuse first.
func (h *Hub) Finish(cause Cause, over time.Duration) {
	h.mu.Lock()
	clients := slices.Clone(h.clients)
	h.mu.Unlock()
	rand.Shuffle(len(clients), func(i, j int) { clients[i], clients[j] = clients[j], clients[i] })

	tick := time.NewTicker(spreadStep)
	defer tick.Stop()
	for start, told := time.Now(), 0; ; {
		n := due(len(clients), time.Since(start), over)
		for _, c := range clients[told:n] {
			c.Finish(cause)
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

// Close stops what is still spread over time. Clients are not ended.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spread.stop()
}
