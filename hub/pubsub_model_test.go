package hub_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/hub"
)

// A pubsubRun is one run of a PubSub: the published entries, and the clients, each with the newest entry up to which
// it must have received everything. All limits of the hub are random, and time passes between steps.
type pubsubRun struct {
	t       *testing.T
	random  *rand.Rand
	hub     *hub.PubSub
	entries []pubsubEntry // entries[i] has the number i+1
	newest  uint64        // place of the newest entry
	clients []*pubsubClient
	resumes []pubsubResume
	roomy   bool // the history keeps everything: a client does not miss anything
	trace   []string
}

type pubsubEntry struct {
	to    hub.Recipient
	topic string
	gap   bool // a new subscription: concerns all clients
	place uint64
}

// number returns the number of the newest entry up to an id.
func (r *pubsubRun) number(id hub.ID) uint64 {
	i, found := slices.BinarySearchFunc(r.entries, place(id), func(e pubsubEntry, p uint64) int { return cmp.Compare(e.place, p) })
	if found {
		i++
	}
	return uint64(i)
}

// id returns the id of the entry with a number.
func (r *pubsubRun) id(number uint64) hub.ID {
	if number == 0 {
		return hub.ID{}
	}
	return idAt(r.entries[number-1].place)
}

// A pubsubResume is a position that a client of a user had when it ended, or that a page of the user was rendered with.
type pubsubResume struct {
	user string
	seq  uint64
	text string // of a page
}

type pubsubClient struct {
	*listener
	name     string
	user     string
	groups   []string
	topics   []string
	last     uint64       // number of the newest entry up to which it is complete
	unknown  bool         // its opening cannot be resumed from: it must receive a gap first
	inFlight []*hub.Frame // taken and not settled
	stalled  int          // steps for which its consumer does not run
	done     bool         // Take has reported the end
}

func (r *pubsubRun) note(format string, args ...any) {
	r.trace = append(r.trace, fmt.Sprintf(format, args...))
}

func (r *pubsubRun) fail(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(r.trace, "\n"))
}

func (c *pubsubClient) concerns(e pubsubEntry) bool {
	return e.gap || (e.to == hub.User(c.user) || e.to == hub.User("*") || e.to.Group && slices.Contains(c.groups, e.to.Name)) && (c.topics == nil || slices.Contains(c.topics, e.topic))
}

// reach moves the client to a position. Up to there, no entry that concerns the client may be missing.
func (r *pubsubRun) reach(c *pubsubClient, seq uint64, what string) {
	if seq < c.last {
		r.fail("%s: %s %d after %d", c.name, what, seq, c.last)
	}
	for missing := c.last + 1; missing < seq; missing++ {
		if c.concerns(r.entries[missing-1]) {
			r.fail("%s: %s %d after %d, and %d is missing", c.name, what, seq, c.last, missing)
		}
	}
	c.last = seq
}

// position moves the client to the position of the hub.
func (r *pubsubRun) position(c *pubsubClient, id hub.ID) {
	number := r.number(id)
	if c.last < number && c.concerns(r.entries[number-1]) {
		r.fail("%s: position %v without that entry", c.name, id)
	}
	if c.last < number {
		r.reach(c, number, "position")
	}
}

func (r *pubsubRun) take(c *pubsubClient, times int) {
	for ; times > 0 && c.stalled == 0 && !c.done; times-- {
		c.Settle(c.inFlight, len(c.inFlight))
		c.inFlight = nil
		frames, reason := c.Take(nil)
		if len(frames) == 0 {
			c.done = reason != 0
			if c.done {
				r.note("%s has ended: %v", c.name, word(reason))
			}
			id, ok := c.Position()
			if ok && c.unknown {
				r.fail("%s: position %v before its gap", c.name, id)
			}
			if ok {
				r.position(c, id)
			}
			return
		}
		for _, f := range frames {
			number := r.number(f.ID)
			r.note("%s gets %d %s", c.name, number, f.Wire)
			switch {
			case f.Gap != 0 && f.Gap != hub.GapRedisReconnect: // announces what it missed
				if r.roomy {
					r.fail("%s: a gap although everything is kept", c.name)
				}
				c.last, c.unknown = max(c.last, number), false
			case c.unknown:
				r.fail("%s: %s before its gap", c.name, f.Wire)
			case number <= c.last:
				r.fail("%s: %d twice", c.name, number)
			case f.Gap != 0 && !f.Replayed: // it may have waited: then its id is the position
				r.reach(c, c.last+1+uint64(slices.IndexFunc(r.entries[c.last:], func(e pubsubEntry) bool { return e.gap })), "gap")
				r.position(c, f.ID)
			default:
				e := r.entries[number-1]
				if want := fmt.Sprint("message ", number); !c.concerns(e) || !e.gap && string(f.Wire) != want {
					r.fail("%s: %s, which is not for it, or %d is another entry", c.name, f.Wire, number)
				}
				r.reach(c, number, "entry")
			}
		}
		c.inFlight = frames
	}
}

func (r *pubsubRun) register(number int) {
	c := &pubsubClient{
		name: fmt.Sprint("client ", number), user: oneOf(r.random, "1", "2", "3"), groups: someOf(r.random, "1", "g", "*"), topics: oneOf(r.random, nil, []string{"a"}),
	}
	o := hub.Options{User: c.user, Groups: c.groups, Topics: c.topics}
	var mine []pubsubResume
	for _, s := range r.resumes {
		if s.user == c.user {
			mine = append(mine, s)
		}
	}
	if len(mine) > 0 && r.random.IntN(4) > 0 {
		from := mine[len(mine)-1-r.random.IntN(min(4, len(mine)))]
		if o.Resume = from.text; o.Resume == "" {
			o.Resume = text(r.hub.Hub, r.id(from.seq))
		}
	}
	c.listener = register(r.t, r.hub, o)
	opening := c.Opening()
	c.last, c.unknown = r.number(opening), opening == hub.UnknownID
	if o.Resume != "" && c.unknown {
		r.fail("%s: %q is unknown", c.name, o.Resume)
	}
	r.note("%s of user %s, groups %q, topics %q, resumes %q, opens %v", c.name, c.user, c.groups, c.topics, o.Resume, opening)
	r.clients = append(r.clients, c)
}

func (r *pubsubRun) step(number int) {
	publish := func(e pubsubEntry) {
		if r.newest++; !e.gap {
			r.newest = (r.newest>>32 + 1) << 32
		}
		e.place = r.newest
		r.entries = append(r.entries, e)
		r.note("entry %d: %+v", len(r.entries), e)
	}
	switch step := r.random.IntN(15); {
	case step < 5:
		e := pubsubEntry{to: hub.User(oneOf(r.random, "1", "2", "3", "*")), topic: oneOf(r.random, "", "a")}
		if r.random.IntN(2) == 0 {
			e.to = hub.Group(oneOf(r.random, "1", "g", "*"))
		}
		publish(e)
		r.hub.Publish(e.to, e.topic, fmt.Sprint("message ", len(r.entries)))
	case step < 6:
		publish(pubsubEntry{gap: true})
		r.hub.GapForAll(hub.GapRedisReconnect)
	case step < 9:
		if len(r.clients) < 6 {
			r.register(number)
		}
	case step < 10:
		time.Sleep(time.Duration(r.random.IntN(1500)) * time.Millisecond)
	case step < 11:
		user := oneOf(r.random, "1", "2", "3")
		id, _ := r.hub.Position(user)
		r.note("position of user %s: %s", user, id)
		r.resumes = append(r.resumes, pubsubResume{user, uint64(len(r.entries)), id})
	case len(r.clients) == 0:
	case step < 12:
		c := r.clients[r.random.IntN(len(r.clients))]
		if r.random.IntN(2) == 0 {
			r.note("%s ends gracefully", c.name)
			c.Finish(hub.ReasonDrain)
		} else {
			r.note("%s is ended", c.name)
			c.End(hub.ReasonClosed)
		}
		c.stalled = r.random.IntN(oneOf(r.random, 1, 40))
	default:
		r.take(r.clients[r.random.IntN(len(r.clients))], 1+r.random.IntN(2))
	}
	r.clients = slices.DeleteFunc(r.clients, func(c *pubsubClient) bool {
		c.stalled = max(c.stalled-1, 0)
		if c.done && !c.unknown {
			r.resumes = append(r.resumes, pubsubResume{c.user, c.last, ""})
		}
		return c.done
	})
}

func runPubSub(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	cfg := hub.Config{
		BroadcastUser:   "*",
		HistoryPerUser:  1 + random.IntN(6),
		HistoryAge:      oneOf(random, time.Hour, 3*time.Second),
		HistoryBytes:    int64(300 + random.IntN(3000)),
		QueueFrames:     oneOf(random, 1, 2, 4, 100),
		QueueTotalBytes: oneOf[int64](random, 0, 10, 50, 300),
		QueueGrace:      oneOf(random, 0, 0, time.Second),
		FanOut:          random.IntN(3),
		GapSpread:       oneOf(random, 0, 2*time.Second),
	}
	r := &pubsubRun{t: t, random: random, roomy: random.IntN(4) == 0}
	if r.roomy {
		cfg.HistoryPerUser, cfg.HistoryAge, cfg.HistoryBytes = 1000, time.Hour, 1<<20
	}
	r.hub = newPubSub(t, cfg)
	hub.LimitRingSearch(r.hub, 2+random.IntN(10))
	for number := range 150 {
		r.step(number)
	}
	hub.AwaitBroadcasts(r.hub.Hub)
	for _, c := range r.clients {
		c.stalled = 0
		r.take(c, 1000)
		if c.done {
			continue
		}
		if _, ok := c.Position(); !ok || c.last != uint64(len(r.entries)) {
			r.fail("%s: complete up to %d (%v) at the end, want %d", c.name, c.last, ok, len(r.entries))
		}
		c.End(hub.ReasonClosed)
		r.take(c, 1)
	}
}

// Invariants 4, 6 and 12 of a PubSub, in random runs with all limits: each entry that concerns a client is received
// once and in order, replayed after the client has reconnected, or announced as a gap. A client receives nothing else, and no
// gap if everything is kept.
func TestInvariant12ResumeFromPubSubWithLimits(t *testing.T) {
	runSeeds(t, 500, runPubSub)
}
