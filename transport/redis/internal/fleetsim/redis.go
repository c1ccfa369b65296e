package fleetsim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Channels of the app and of the hubs.
const (
	UserPattern    = "user-*"
	GroupPattern   = "group-*"
	ControlChannel = "control"
	BroadcastUser  = "*"
	TopicSeparator = ":"
)

// A Message is a message of the app.
type Message struct {
	number  int
	channel string
	user    string // "": to a group, or malformed
	group   string // "": to a user, or malformed
	topic   string
	payload string
	feed    int // number of the --redis
}

// A markerPlace is what the oracle knows about a marker: where it stands in the order of the server that it counts for.
type markerPlace struct {
	name     string // alias
	runID    string // of that server
	server   *server
	order    int
	patterns string
	at       time.Duration
}

// A server is one Redis process. It passes all messages to all subscribers in one order.
type server struct {
	name    string // stands for the run_id
	up      bool
	order   int
	log     []logged
	links   []*link
	replica *server // a former primary that now follows this server, and has subscribers
}

// A logged is a message with its place in the order of a server.
type logged struct {
	order   int
	message *Message
}

func (w *World) newServer(up bool) *server {
	s := &server{name: fmt.Sprint("run", len(w.aliases)+1), up: up}
	w.aliases[s.name] = s.name
	return s
}

// An item is what a server sends over a link.
type item struct {
	at      time.Duration // when it arrives
	message *Message
	control string
	marker  *markerPlace // in control
	pong    string
	confirm func(*link)
}

// publish passes an item to all subscribers. It returns false if the server is down.
func (s *server) publish(it item) bool {
	if !s.up {
		return false
	}
	s.order++
	if it.message != nil {
		s.log = append(s.log, logged{s.order, it.message})
	}
	if m := it.marker; m != nil && m.runID == s.name {
		m.server, m.order = s, s.order
	}
	if s.replica != nil {
		s.replica.publish(it)
	}
	for _, l := range s.links {
		if it.message != nil && l.receives(it.message.channel) || it.message == nil && l.control {
			l.push(it)
		}
	}
	return true
}

// A link is one connection of a subscription. Its items arrive in order, with a delay of up to lag.
type link struct {
	feed     *Feed
	server   *server
	cut      bool // nothing is sent any more
	patterns []string
	control  bool // the control channel is subscribed to
	items    []item
	last     time.Duration // arrival of the newest item
	lag      time.Duration
	drop     int // so many messages and markers are lost

	// For the oracle.
	subscribed int           // order of the server when the control channel was subscribed to; MaxInt: not confirmed so far
	began      time.Duration // when the process received the confirmation of the patterns; 0: not yet
	dropped    int           // messages and markers that were lost
	marked     bool          // a marker was sent
}

func newLink(f *Feed, s *server) *link {
	return &link{feed: f, server: s, lag: f.process.world.between(1*unit, 40*unit), subscribed: math.MaxInt}
}

func (l *link) receives(channel string) bool { return matches(l.patterns, channel) }

// matches reports whether one of the patterns matches a channel.
func matches(patterns []string, channel string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return strings.HasPrefix(channel, strings.TrimSuffix(p, "*")) })
}

func (l *link) push(it item) {
	w := l.feed.process.world
	switch {
	case l.cut:
		return
	case l.drop > 0 && (it.message != nil || it.control != ""):
		l.drop--
		l.dropped++
		what := "a marker"
		if it.marker != nil {
			what = it.marker.name
		}
		if it.message != nil {
			what = fmt.Sprint("message ", it.message.number)
			if w.lostAt == 0 && !w.ending && l.marked { // before the first marker, other hubs cannot check it
				w.lostAt = w.Now()
			}
		}
		w.say("the link of %s loses %s", l.feed.process.Name, what)
		return
	}
	l.marked = l.marked || it.marker != nil
	it.at = max(l.last, w.Now()+unit+w.between(0, l.lag))
	l.last = it.at
	l.items = append(l.items, it)
	w.after(it.at-w.Now(), l.deliver)
}

// deliver passes all items that have arrived to the process.
func (l *link) deliver() {
	p := l.feed.process
	for len(l.items) > 0 && l.items[0].at <= p.world.Now() && l.feed.link == l && p.alive && !p.frozen {
		it := l.items[0]
		l.items = l.items[1:]
		switch {
		case it.confirm != nil:
			it.confirm(l)
		case it.message != nil:
			p.node.Message(l.feed, it.message.channel, it.message.payload)
		case it.control != "":
			p.node.Control(l.feed, it.control)
		default:
			p.node.Pong(l.feed, it.pong)
		}
	}
}
