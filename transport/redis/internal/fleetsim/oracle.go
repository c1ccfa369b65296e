package fleetsim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An oracle knows what a page must receive. It knows the messages, the processes and their connections, but nothing of
// how a hub counts. It reads an id as docs/protocol.md defines it: the nth message after a marker.
type oracle struct {
	page *page

	complete bool       // the page has an id: it must receive all messages from now on
	due      []*Message // not received so far, in the order of their publication
	groups   []string   // of which its user was a member at the newest connect
	from     position   // that of the id with which the newest stream was opened, until a gap
	refetch  int        // number of messages that had been published when the page fetched its state
	seen     map[int]bool
	repeated int              // messages up to this one may be received again
	newest   map[int]int      // number of the newest message that was received, by --redis
	gaps     map[gapCount]int // received so far
	expired  int              // gaps history-expired since the last message
	large    map[int]bool     // numbers of messages to the page that are too large for some hub
	tooLarge int              // gaps too-large received so far
}

// A position is a place in the order of a server: behind so many messages and markers.
type position struct {
	server *server // nil: unknown
	order  int
}

// position returns the place of an id: the nth message that matches the patterns after a marker. It is unknown if the
// marker counts for one hub only.
func (w *World) position(id string) position {
	place, _, _ := strings.Cut(id, ".")
	name, number, _ := strings.Cut(place, "-")
	m, n := w.markers[name], 0
	if m == nil || m.server == nil {
		return position{}
	}
	if _, err := fmt.Sscan(number, &n); err != nil {
		w.fail("malformed id %q", id)
		return position{}
	}
	p := position{m.server, m.order}
	patterns := strings.Split(m.patterns, " ")
	for _, l := range m.server.log {
		if n == 0 {
			break
		}
		if l.order > m.order && matches(patterns, l.message.channel) {
			p.order = l.order
			n--
		}
	}
	if n > 0 && !w.class.loses {
		w.fail("id %s is the place of a message that does not exist", w.readable(id))
	}
	return p
}

// passed reports whether a message is known to be before p, or at it. ok is false if that is unknown.
func (p position) passed(m *Message) (passed, ok bool) {
	if p.server == nil {
		return false, false
	}
	i := slices.IndexFunc(p.server.log, func(l logged) bool { return l.message == m })
	return i >= 0 && p.server.log[i].order <= p.order, i >= 0
}

// A gapCount identifies gaps that a page may receive several times.
type gapCount struct {
	process *Process
	reason  string
}

func newOracle(p *page) oracle {
	return oracle{page: p, seen: make(map[int]bool), newest: make(map[int]int), gaps: make(map[gapCount]int), large: make(map[int]bool)}
}

// A snapshot is the state of a process at one moment.
type snapshot struct {
	link        *link // of the newest generation; nil: none so far
	began       time.Duration
	subscribed  int
	dropped     int
	generations int
	missed      int
	published   int // how many messages
}

func (p *Process) snapshot() snapshot {
	s := snapshot{link: p.link, generations: p.generations, missed: p.missed, published: len(p.world.messages)}
	if l := p.link; l != nil {
		s.began, s.subscribed, s.dropped = l.began, l.subscribed, l.dropped
	}
	return s
}

// wants reports whether a message is for the page, with the groups of its newest connect.
func (p *page) wants(m *Message) bool {
	to := m.user == p.user || m.user == BroadcastUser || m.group != "" && slices.Contains(p.oracle.groups, m.group)
	return to && (p.topics == nil || slices.Contains(p.topics, m.topic))
}

// opens is called when the page opens a stream. Without an id, it fetches its state afterwards.
func (o *oracle) opens(s *Stream) {
	before := o.groups
	o.groups, o.from = s.Groups, position{}
	for _, m := range o.page.world.messages {
		o.countLarge(m) // the hub may be behind
	}
	if s.LastID == "" {
		o.complete, o.due = true, nil
		return
	}
	o.from = o.page.world.position(s.LastID)
	o.regroup(before)
	o.page.world.result.Resumes++
	if s.moved = o.page.giver != s.process; s.moved {
		o.page.world.result.Moves++
	}
}

// regroup adds the messages of groups that the page has joined since the newest connect, as far as they are after its
// id, and removes those of groups that it has left.
func (o *oracle) regroup(before []string) {
	w := o.page.world
	o.due = slices.DeleteFunc(o.due, func(m *Message) bool { return !o.page.wants(m) })
	for _, m := range w.messages[o.refetch:] {
		if m.group == "" || slices.Contains(before, m.group) || o.seen[m.number] || !o.page.wants(m) {
			continue
		}
		if passed, known := o.from.passed(m); known && !passed || !known && m.number > o.page.idSince {
			o.due = append(o.due, m)
			w.result.Joined++
		}
	}
	slices.SortFunc(o.due, func(a, b *Message) int { return a.number - b.number })
}

// published is called before a message reaches any hub.
func (o *oracle) published(m *Message) {
	if o.complete && o.page.wants(m) {
		o.due = append(o.due, m)
	}
	o.countLarge(m)
}

func (o *oracle) countLarge(m *Message) {
	if len(m.payload) > smallMaxPayload && o.page.wants(m) {
		o.large[m.number] = true
	}
}

// check checks a block that has arrived. before is the id of the page before it.
func (o *oracle) check(s *Stream, b Block, before string, state snapshot) {
	w, p := o.page.world, o.page
	at := p.name + "@" + s.process.Name
	switch b.Event {
	case "open", "busy":
		if s.LastID != "" && b.ID != s.LastID || s.LastID == "" && b.Event == "open" && b.ID == "" {
			w.fail("%s: %s with id %q, the page sent %q", at, b.Event, w.readable(b.ID), w.readable(s.LastID))
		}
	case "ping":
		if b.ID == "" {
			w.fail("%s: a ping without an id", at)
		}
	case "message":
		o.message(at, b)
	case "gap":
		w.result.Gaps[b.Reason]++
		o.gap(at, s, b, before, state)
	}
}

func (o *oracle) message(at string, b Block) {
	w := o.page.world
	digits, _, _ := strings.Cut(b.Payload, " ")
	number, err := strconv.Atoi(digits)
	if err != nil || number < 1 || number > len(w.messages) {
		w.fail("%s: an unknown message, %q", at, b.Payload)
		return
	}
	m := w.messages[number-1]
	// Until a hub has noticed that it lost messages, its ids are short: a page that moves may get as many again.
	if (!w.class.loses || w.lossy == nil) && number > o.repeated {
		switch {
		case o.seen[number]:
			w.fail("%s: message %d twice", at, number)
		case number < o.newest[m.feed]:
			w.fail("%s: message %d out of order", at, number)
		}
	}
	if !o.page.wants(m) {
		w.fail("%s: message %d to %s", at, number, m.channel)
	}
	if passed, _ := o.from.passed(m); passed && !w.class.loses && number > o.repeated {
		w.fail("%s: message %d is before the id with which the stream was opened", at, number)
	}
	if m.group != "" {
		w.result.GroupMessages++
	}
	o.seen[number] = true
	o.newest[m.feed] = max(o.newest[m.feed], number)
	o.expired = 0
	i := slices.Index(o.due, m)
	if i < 0 {
		return
	}
	if !w.class.loses && !w.class.replicates {
		for _, missing := range o.due[:i] {
			if missing.feed == m.feed {
				w.fail("%s: message %d was lost silently, before %d", at, missing.number, number)
			}
		}
	}
	o.due = slices.Delete(o.due, i, i+1)
}

// gap checks that a gap is justified. The page fetches its state after it.
func (o *oracle) gap(at string, s *Stream, b Block, before string, state snapshot) {
	w := o.page.world
	if reason := o.unjustified(s, b, before, state); reason != "" {
		w.fail("%s: unjustified gap %s for id %s: %s", at, b.Reason, w.readable(before), reason)
	}
	if b.ID == "" || b.ID == before && b.Reason != "redis-reconnect" {
		w.fail("%s: gap %s with id %q, after id %q", at, b.Reason, w.readable(b.ID), w.readable(before))
	}
	if b.Reason == "unknown-id" && s.moved {
		w.result.Unknown++
	}
	if b.Reason == "unknown-id" && (s.process.Old || len(s.process.feeds) > 1) {
		o.repeated = len(w.messages) // the hub may be behind, and does not check that
	}
	if b.Reason == "history-expired" {
		if o.expired++; o.expired > 12 {
			w.fail("%s: %d gaps history-expired without a message", at, o.expired)
		}
	}
	key := gapCount{s.process, b.Reason}
	if b.Reason != "missed" || s.LastID == "" || s.received > 2 { // otherwise, the id of the page is in doubt
		o.gaps[key]++
	}
	limit := map[string]int{"redis-reconnect": state.generations, "missed": state.missed}
	if most, ok := limit[b.Reason]; ok && o.gaps[key] > most {
		w.fail("%s: gap %s was received %d times, want at most %d", at, b.Reason, o.gaps[key], most)
	}
	o.due, o.from, o.refetch = nil, position{}, len(w.messages)
}

// unjustified returns why a gap is not justified, or "".
func (o *oracle) unjustified(s *Stream, b Block, before string, state snapshot) string {
	w, hub := o.page.world, s.process
	name, _, _ := strings.Cut(before, "-")
	switch b.Reason {
	case "unknown-id":
		if name == hub.node.Boot() {
			return "the id is of this process"
		}
		m, ok := w.markers[name]
		switch {
		case !ok, m.server == nil, hub.Old, hub.NoRunID, len(w.primaries) > 1:
			return ""
		case state.link == nil:
			return "the hub was not subscribed yet"
		case m.server != state.link.server, m.order <= state.subscribed, m.patterns != strings.Join(hub.Patterns, " "):
			return ""
		case w.Now()-m.at > hub.HistoryAge+PingInterval+15*time.Second:
			return ""
		case state.dropped > 0:
			return ""
		}
		return fmt.Sprintf("its marker is number %d at %s, and the hub is subscribed since %d", m.order, m.server.name, state.subscribed)
	case "redis-reconnect":
		m, ok := w.markers[name]
		switch {
		case state.link == nil:
			return "the hub was not subscribed yet"
		case s.LastID == "" || s.opened <= state.began: // open when the generation began
			return ""
		case !ok, m.server != state.link.server, m.order <= state.subscribed, len(w.primaries) > 1:
			return ""
		}
		return fmt.Sprintf("the stream was opened at %v with a marker of this generation, which began at %v", s.opened, state.began)
	case "history-expired":
		if !w.class.limited {
			return "the histories are not limited"
		}
	case "missed":
		if w.lossy == nil {
			return "no message was lost"
		}
	case "too-large":
		if o.tooLarge++; o.tooLarge > len(o.large) && w.lossy == nil && o.repeated == 0 {
			return fmt.Sprintf("only %d messages were too large", len(o.large))
		}
	default:
		return "unknown reason"
	}
	return ""
}

// finish checks at the end that the page is complete.
func (o *oracle) finish() {
	w, p := o.page.world, o.page
	switch {
	case len(w.violations) > 0:
	case p.stream == nil && w.Now()-p.disconnected > 10*time.Second:
		w.fail("%s: not connected at the end", p.name)
	case len(o.due) > 0:
		w.fail("%s: message %d never came", p.name, o.due[0].number)
	}
}

// describe returns a block for the story.
func (w *World) describe(b Block) string {
	text := b.Event
	if b.Event == "message" {
		digits, _, _ := strings.Cut(b.Payload, " ")
		text += " " + digits
	}
	if b.Reason != "" {
		text += " " + b.Reason
	}
	return text + " id " + w.readable(b.ID)
}
