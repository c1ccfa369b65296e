package hub

import (
	"slices"
	"time"
	"weak"
)

// A history keeps the newest entries of the sequence for clients that reconnect. There are
// two: userHistory for a PubSub, window for a StreamFeed. All methods are called with
// Hub.mu held.
type history interface {
	// begin sets up the replay of a client that resumes from an id, "" for none, and returns
	// the id that its stream opens with. The client has no replay if it has missed nothing.
	begin(c *Client, resume string) (opening ID)
	// ready reports whether the history holds all that a replay is to send next. If it does
	// not, ready has put the replay into another state.
	ready(r *replay) bool
	// between returns what is kept for u and for all users after one id and up to another, in
	// order, at most n entries; all says that there are no more.
	between(u *user, after, upTo ID, n int) (list []*entryNode, all bool)

	// owner returns the user for whom an entry is to be kept although the hub does not know its name, or nil.
	owner(name string) *user
	// add keeps an entry of one user, before it is routed: routing can end the last client of u, and
	// a user of whom nothing is kept is forgotten then. An Entry is passed by value, because a pointer
	// would escape; if the history isTimed, the caller has called Entry.time.
	add(u *user, e Entry)
	isTimed() bool
	// addForAll keeps an entry of all users. With allTopics no topic filter applies.
	addForAll(e Entry, allTopics bool)
	// joined is called when the first client of u has registered, left when its last one has ended.
	joined(u *user, isNew bool)
	left(u *user)

	size() (entries int, bytes int64)
	close()
}

// past is what a history keeps of one user.
type past struct {
	entries  deque[*entryNode]
	lowWater ID        // only userHistory: all later entries of the user are kept
	retained *retained // only userHistory; nil: the user has a client
}

// An entryNode is an entry of a history.
type entryNode struct {
	id             ID
	topic, payload string
	gap            Gap
	allTopics      bool
	owner          *user // nil: only the id counts
	// Frames that were made of it for a replay, plain and named, while they are being
	// written: thousands of clients that reconnect together share them.
	frames *[2]weak.Pointer[Frame] // nil: there never were any

	// Only userHistory.
	since        time.Duration // since userHistory.born
	older, newer *entryNode
}

// entryOverhead is about what an entry costs besides its strings, in bytes.
const entryOverhead = 160

func (n *entryNode) bytes() int64 {
	bytes := entryOverhead + len(n.topic) + len(n.payload)
	if n.owner != nil {
		bytes += len(n.owner.name)
	}
	return int64(bytes)
}

// frame returns a frame that was made of n and that is still in use, or nil.
func (n *entryNode) frame(variant int) *Frame {
	if n.frames == nil {
		return nil
	}
	return n.frames[variant].Value()
}

func (n *entryNode) share(variant int, f *Frame) {
	if n.frames == nil {
		n.frames = new([2]weak.Pointer[Frame])
	}
	n.frames[variant] = weak.Make(f)
}

// entries is what both histories have in common.
type entries struct {
	limit      int64 // of bytes
	bytes      int64
	count      int
	broadcasts user // owns the entries of all users
}

func (s *entries) size() (entries int, bytes int64) { return s.count, s.bytes }

// push adds an entry of owner, nil if only its id counts.
func (s *entries) push(owner *user, e Entry, allTopics bool) *entryNode {
	n := &entryNode{id: e.ID, topic: e.Topic, payload: e.Payload, gap: e.Gap, allTopics: allTopics, owner: owner}
	if owner != nil {
		owner.past.entries.pushBack(n)
	}
	s.count++
	s.bytes += n.bytes()
	return n
}

// pop removes the oldest entry of its owner.
func (s *entries) pop(n *entryNode) {
	if n.owner != nil {
		n.owner.past.entries.popFront()
	}
	s.count--
	s.bytes -= n.bytes()
}

// userOverhead is about what a user without entries costs besides its name, in bytes: the
// user, retained and its place in the table.
const userOverhead = 256

// charge adds a user to the bytes of the history. Those of users without a client are in it.
func (s *entries) charge(u *user) { s.bytes += int64(userOverhead + len(u.name)) }

func (s *entries) discharge(u *user) { s.bytes -= int64(userOverhead + len(u.name)) }

func (s *entries) between(u *user, after, upTo ID, n int) (list []*entryNode, all bool) {
	own, common := behind(u.past.entries.all(), after), behind(s.broadcasts.past.entries.all(), after)
	for range n {
		next := &own
		if len(own) == 0 || len(common) > 0 && common[0].id.before(own[0].id) {
			next = &common
		}
		if len(*next) == 0 || upTo.before((*next)[0].id) {
			return list, true
		}
		list = append(list, (*next)[0])
		*next = (*next)[1:]
	}
	return list, false
}

// behind returns the part of a list after an id.
func behind(list []*entryNode, id ID) []*entryNode {
	i, found := search(list, id)
	if found {
		i++
	}
	return list[i:]
}

func search(list []*entryNode, id ID) (i int, found bool) {
	return slices.BinarySearchFunc(list, id, func(n *entryNode, id ID) int { return n.id.Compare(id) })
}
