package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"usercast/internal/app"
	"usercast/internal/eventstream"
	"usercast/internal/hubtest"
	"usercast/internal/ssetest"
)

// A soakPage is one browser: it reconnects repeatedly with its last event ID, to any hub, and sometimes stalls. The
// events that it receives are compared with the messages that the app published.
type soakPage struct {
	world *soakWorld
	rng   *rand.Rand // owned by run
	name  string
	lone  bool // no other page has its user, and it sometimes stays away

	// Owned by run.
	audience        // it changes between two visits; with pub/sub, the topics do not change
	id       string // Last-Event-ID; "": none yet
	home     int    // the hub to which it mostly reconnects

	duty               // with pub/sub: what it must receive
	visits []soakVisit // with the stream feed: all its visits

	mu   sync.Mutex
	conn *net.TCPConn // guarded by mu; nil: not connected
}

// A soakVisit is one connection with the stream feed: the events received after one ID and up to another.
type soakVisit struct {
	from, to string
	audience audience
	items    []soakItem
}

// A soakItem is a received event: a message, or a gap with the number -1.
type soakItem struct {
	id     string
	number int
}

func newSoakPage(w *soakWorld, i int, rng *rand.Rand) *soakPage {
	p := &soakPage{
		world: w, rng: rng, name: fmt.Sprint("page ", i), lone: i < soakLone, home: i % soakHubs,
		audience: audience{user: soakUser(i)}, duty: newDuty(),
	}
	p.chooseTopics()
	return p
}

// soakUser returns the user of page i.
func soakUser(i int) string {
	if i < soakLone {
		return fmt.Sprint("lone-", i)
	}
	return strconv.Itoa(i % soakUsers)
}

func (p *soakPage) chooseTopics() {
	p.topics = nil
	if p.rng.IntN(2) == 0 {
		p.topics = []string{soakTopics[p.rng.IntN(len(soakTopics))], ""}
	}
}

// leave closes the page's connection, if there is one.
func (p *soakPage) leave(reset bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		return
	}
	if reset {
		p.conn.SetLinger(0)
	}
	p.conn.Close()
}

func (p *soakPage) hold(conn *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn = conn
}

// run visits hubs until it has received the last message.
func (p *soakPage) run() {
	p.openTab()
	for !p.isDone() {
		p.visit()
		switch time.Sleep(time.Duration(p.rng.IntN(400)) * time.Millisecond); {
		case p.world.ending():
		case p.lone && p.rng.IntN(4) == 0:
			p.stayAway()
		case p.rng.IntN(20) == 0:
			p.openTab()
		}
	}
}

// stayAway waits, sometimes for longer than the lease of a user. Afterwards, it is a new page.
func (p *soakPage) stayAway() {
	p.world.count("absences")
	select {
	case <-p.world.ended:
	case <-time.After(time.Duration(p.rng.IntN(90)) * time.Second):
	}
	p.openTab()
}

// openTab makes it a new page, which sometimes begins with a position that the app has requested from any hub. Then it
// must receive everything from there on.
func (p *soakPage) openTab() {
	p.id, p.duty = "", newDuty()
	if p.rng.IntN(2) == 0 {
		return
	}
	hub := p.world.hubs[p.rng.IntN(soakHubs)]
	id, ok := requestPosition(p.world.t.Context(), hub.Admin, p.user, p.world.report)
	if !ok {
		p.world.count("no position")
		return
	}
	p.world.count("positions")
	p.id, p.position = id, p.world.app.size()
	p.complete(p.audience, p.position)
}

// isDone reports whether the page has received the last message, or a gap instead, or has
// timed out waiting for it.
func (p *soakPage) isDone() bool {
	switch last := int(p.world.last.Load()); {
	case last == 0:
		return false
	case p.received == last, p.world.feed == app.FeedPubSub && p.from != nil && p.begin() > last:
		return true
	case time.Since(p.world.rested) > hubtest.Patience:
		p.world.report("%s did not receive the last message, number %d; the previous one was %d, the position is %s", p.name, last, p.received, p.id)
		return true
	}
	return false
}

func (p *soakPage) visit() {
	if p.rng.IntN(3) == 0 {
		p.home = p.rng.IntN(soakHubs)
	}
	if p.world.feed == app.FeedStream && p.rng.IntN(3) == 0 && !p.world.ending() {
		p.chooseTopics()
	}
	if p.rng.IntN(3) == 0 {
		p.groups = randomGroups(p.rng, soakGroups)
	}
	p.open(p.audience)
	query, headers := p.query(), []string(nil)
	switch {
	case p.id == "":
	case p.rng.IntN(2) == 0:
		query += "&last-event-id=" + p.id
	default:
		headers = []string{"Last-Event-ID: " + p.id}
	}
	visit := p.world.presence.ask(p.user)
	defer p.world.presence.left(visit)
	s, err := ssetest.Request(p.world.hubs[p.home].Public, query, headers...)
	if err != nil {
		p.world.count("connection failed")
		return
	}
	defer s.Close()
	if s.Response.StatusCode != 200 {
		p.world.report("%s: response %s", p.name, s.Response.Status)
		return
	}
	p.hold(s.Conn.(*net.TCPConn))
	defer p.hold(nil)
	if !p.world.ending() && p.rng.IntN(2) == 0 {
		reset := p.rng.IntN(2) == 0
		defer time.AfterFunc(time.Duration(p.rng.IntN(15000))*time.Millisecond, func() { p.leave(reset) }).Stop()
	}
	p.world.count("visits")
	p.read(s, visit)
}

// read reads a stream until it ends.
func (p *soakPage) read(s *ssetest.Stream, visit *presenceVisit) {
	known := p.id != ""
	v := soakVisit{from: p.id, audience: p.audience}
	opened := false
	defer func() {
		if opened {
			v.to = p.id
			p.visits = append(p.visits, v)
		}
	}()
	for !p.isDone() {
		if opened && !p.world.ending() && p.rng.IntN(300) == 0 {
			p.world.count("stalls")
			time.Sleep(time.Duration(p.rng.IntN(5000)) * time.Millisecond)
		}
		// A healthy hub sends at least one ping per second.
		s.Conn.SetReadDeadline(time.Now().Add(hubtest.Patience))
		e, fires, err := s.Block()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.world.report("%s receives nothing for %v", p.name, hubtest.Patience)
		}
		if err != nil {
			return
		}
		if !opened && e.Type == "busy" {
			p.world.count("busy")
			return
		}
		if !opened {
			opened = true
			if s.LastID == "" || fires {
				p.world.report("%s: a stream begins with %+v, id %q", p.name, e, s.LastID)
				return
			}
			if !known {
				v.from = s.LastID
			}
		}
		p.world.presence.saw(visit)
		p.position = p.world.app.size()
		if p.from == nil {
			p.complete(p.audience, p.position)
		}
		if fires {
			p.handle(e, &v)
		}
		p.id = s.LastID
	}
}

func (p *soakPage) handle(e eventstream.Event, v *soakVisit) {
	switch e.Type {
	case "bye":
		p.world.count("bye " + e.Data)
	case "gap":
		p.world.count("gap " + e.Data)
		p.complete(p.audience, p.position)
		if e.ID == p.id {
			p.world.report("%s: a gap without a new ID, at %s", p.name, p.id)
		}
		if strings.ContainsAny(v.from, "abcdefghijklmnopqrstuvwxyz") && p.world.feed == app.FeedStream {
			// Nothing was guaranteed before: the stream cannot be resumed from this ID.
			v.from, v.items = e.ID, nil
			return
		}
		v.items = append(v.items, soakItem{e.ID, -1})
	case "message":
		p.world.count("messages")
		number, err := soakNumber(e.Data)
		if err != nil {
			p.world.report("%s receives %.80q", p.name, e.Data)
			return
		}
		v.items = append(v.items, soakItem{e.ID, number})
		if p.world.feed == app.FeedPubSub {
			p.compareWithLog(number)
		}
		p.receive(number)
	default:
		p.world.report("%s receives %+v", p.name, e)
	}
}

// compareWithLog checks that the page received every message since the last one, or a gap.
func (p *soakPage) compareWithLog(number int) {
	app := p.world.app
	if m, ok := app.message(number); !ok || !p.includes(m) {
		p.world.report("%s of %+v receives message %d: %+v", p.name, p.audience, number, m)
	}
	if number <= p.received {
		p.world.report("%s receives message %d after %d", p.name, number, p.received)
	}
	if missing, ok := p.missing(p.audience, app.between(p.begin(), number)); ok {
		p.world.report("%s of %+v receives message %d after %d, without number %d or a gap", p.name, p.audience, number, p.received, missing)
	}
}

// compareWithStream checks that each visit received exactly the entries of the stream between its first and last
// IDs, once and in order. A gap for all pages or for a group is spread over a few seconds, and has the position of the moment at
// which it is written, which is before the next entry for the page.
func (p *soakPage) compareWithStream() {
	entries := p.world.app.entries
	for i, v := range p.visits {
		from, to := soakID(v.from), soakID(v.to)
		if from == nil || to == nil {
			if len(v.items) > 0 {
				p.world.report("%s, visit %d from %s to %s: %d events without IDs", p.name, i, v.from, v.to, len(v.items))
			}
			continue
		}
		begin, _ := slices.BinarySearchFunc(entries, from, func(e soakEntry, id []uint64) int { return slices.Compare(soakID(e.id), id) })
		var want []soakItem
		spread := make(map[int]bool) // indexes in want
		for _, e := range entries[begin:] {
			at := soakID(e.id)
			if slices.Compare(at, to) > 0 {
				break
			}
			if slices.Compare(at, from) > 0 && v.audience.includes(e.message) {
				number := e.number
				if e.large {
					number, spread[len(want)] = -1, e.user == "*" || e.group != ""
				}
				want = append(want, soakItem{e.id, number})
			}
		}
		equal := func(n int) bool {
			got := v.items[n]
			if got == want[n] || !spread[n] || got.number != -1 {
				return got == want[n]
			}
			at := soakID(got.id)
			return slices.Compare(at, soakID(want[n].id)) > 0 && (n+1 == len(want) || slices.Compare(at, soakID(want[n+1].id)) < 0)
		}
		n := 0
		for n < min(len(want), len(v.items)) && equal(n) {
			n++
		}
		if n < max(len(want), len(v.items)) {
			p.world.report("%s of %+v, visit %d from %s to %s: %d events, want %d; after %d equal ones %v, want %v",
				p.name, v.audience, i, v.from, v.to, len(v.items), len(want), n, v.items[n:min(n+3, len(v.items))], want[n:min(n+3, len(want))])
		}
	}
}

// soakID parses the ID of a stream entry; nil: it is not a valid ID.
func soakID(id string) []uint64 {
	ms, seq, _ := strings.Cut(id, "-")
	a, err1 := strconv.ParseUint(ms, 10, 64)
	b, err2 := strconv.ParseUint(seq, 10, 64)
	if cmp.Or(err1, err2) != nil {
		return nil
	}
	return []uint64{a, b}
}
