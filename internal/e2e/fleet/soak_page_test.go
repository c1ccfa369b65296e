//go:build soak

package fleet

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
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

// A soakPage is one browser: it comes back again and again with its last id, to
// some hub, and is not always a good reader. What it hears is held against what
// the app said.
type soakPage struct {
	world *soakWorld
	rng   *rand.Rand // owned by run
	name  string
	user  string

	// Owned by run.
	topics   []string // nil: all
	position string   // Last-Event-ID; "": never had one
	home     int      // the hub that it mostly comes back to

	// With pub/sub: what it heard last, and whether it was told of a gap since.
	heard   int
	since   int // number of the newest message when it first opened a stream; -1: not yet
	excused bool

	// With a stream: all its visits.
	visits []soakVisit

	mu   sync.Mutex
	conn *net.TCPConn // guarded by mu; nil: away
}

// A soakVisit is one connection on the stream feed: what it heard after one id and
// up to another.
type soakVisit struct {
	from, to string
	topics   []string
	items    []soakItem
}

// A soakItem is an event: a message, or a gap with the number -1.
type soakItem struct {
	id     string
	number int
}

func newSoakPage(w *soakWorld, i int, rng *rand.Rand) *soakPage {
	p := &soakPage{world: w, rng: rng, name: fmt.Sprint("page ", i), user: strconv.Itoa(i % soakUsers), home: i % soakHubs, heard: -1, since: -1}
	p.chooseTopics()
	return p
}

func (p *soakPage) chooseTopics() {
	p.topics = nil
	if p.rng.IntN(2) == 0 {
		p.topics = []string{soakTopics[p.rng.IntN(len(soakTopics))], ""}
	}
}

// leave ends the page's connection, if there is one.
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

// run visits hubs until it has heard the last message.
func (p *soakPage) run() {
	for !p.isDone() {
		p.visit()
		time.Sleep(time.Duration(p.rng.IntN(400)) * time.Millisecond)
	}
}

// isDone reports whether the page has heard the last message, or a gap instead, or
// should have.
func (p *soakPage) isDone() bool {
	switch last := int(p.world.last.Load()); {
	case last == 0:
		return false
	case p.heard == last, p.excused && p.world.feed == app.FeedPubSub:
		return true
	case time.Since(p.world.rested) > hubtest.Patience:
		p.world.report("%s never hears the last message, number %d; it heard %d, its position is %s", p.name, last, p.heard, p.position)
		return true
	}
	return false
}

func (p *soakPage) visit() {
	if p.rng.IntN(3) == 0 {
		p.home = p.rng.IntN(soakHubs)
	}
	if p.world.feed == app.FeedStream && p.rng.IntN(3) == 0 && !p.world.ending.Load() {
		p.chooseTopics()
	}
	query, headers := "user="+p.user, []string(nil)
	for _, topic := range p.topics {
		query += "&topic=" + url.QueryEscape(topic)
	}
	switch {
	case p.position == "":
	case p.rng.IntN(2) == 0:
		query += "&last-event-id=" + p.position
	default:
		headers = []string{"Last-Event-ID: " + p.position}
	}
	s, err := ssetest.Request(p.world.hubs[p.home].Public, query, headers...)
	if err != nil {
		p.world.count("no hub there")
		return
	}
	defer s.Close()
	if s.Response.StatusCode != 200 {
		p.world.report("%s is answered with %s", p.name, s.Response.Status)
		return
	}
	p.hold(s.Conn.(*net.TCPConn))
	defer p.hold(nil)
	if !p.world.ending.Load() && p.rng.IntN(2) == 0 {
		reset := p.rng.IntN(2) == 0
		defer time.AfterFunc(time.Duration(p.rng.IntN(15000))*time.Millisecond, func() { p.leave(reset) }).Stop()
	}
	p.world.count("visits")
	p.read(s)
}

// read reads a stream to its end.
func (p *soakPage) read(s *ssetest.Stream) {
	known := p.position != ""
	v := soakVisit{from: p.position, topics: p.topics}
	opened := false
	defer func() {
		if opened {
			v.to = p.position
			p.visits = append(p.visits, v)
		}
	}()
	for !p.isDone() {
		if opened && !p.world.ending.Load() && p.rng.IntN(300) == 0 {
			p.world.count("stalls")
			time.Sleep(time.Duration(p.rng.IntN(5000)) * time.Millisecond)
		}
		// A healthy hub says something every second.
		s.Conn.SetReadDeadline(time.Now().Add(hubtest.Patience))
		e, fires, err := s.Block()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.world.report("%s hears nothing for %v", p.name, hubtest.Patience)
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
			if p.since < 0 {
				p.since = p.world.app.size() - 1
			}
			if !known {
				v.from = s.LastID
			}
		}
		if fires {
			p.hear(e, &v)
		}
		p.position = s.LastID
	}
}

func (p *soakPage) hear(e eventstream.Event, v *soakVisit) {
	switch e.Type {
	case "bye":
		p.world.count("bye " + e.Data)
	case "gap":
		p.world.count("gap " + e.Data)
		p.excused = true
		if e.ID == p.position {
			p.world.report("%s: a gap without an id of its own, at %s", p.name, p.position)
		}
		if strings.ContainsAny(v.from, "abcdefghijklmnopqrstuvwxyz") && p.world.feed == app.FeedStream {
			// Nothing was promised before: the id was one that nobody can resume from.
			v.from, v.items = e.ID, nil
			return
		}
		v.items = append(v.items, soakItem{e.ID, -1})
	case "message":
		p.world.count("messages")
		number, err := soakNumber(e.Data)
		if err != nil {
			p.world.report("%s hears %.80q", p.name, e.Data)
			return
		}
		v.items = append(v.items, soakItem{e.ID, number})
		if p.world.feed == app.FeedPubSub {
			p.compareWithLog(number)
		}
		p.heard = number
	default:
		p.world.report("%s hears %+v", p.name, e)
	}
}

// compareWithLog wants every message since the one that was heard last, or to have
// been told of a gap.
func (p *soakPage) compareWithLog(number int) {
	app := p.world.app
	if m, ok := app.message(number); !ok || !m.reaches(p.user, p.topics) {
		p.world.report("%s of user %s, topics %q hears message %d: %+v", p.name, p.user, p.topics, number, m)
	}
	if number <= p.heard {
		p.world.report("%s hears message %d after %d", p.name, number, p.heard)
	}
	after := max(p.heard, p.since)
	for i, m := range app.between(after, number) {
		if m.reaches(p.user, p.topics) && !m.perhaps && !p.excused {
			p.world.report("%s hears message %d after %d, without number %d and without a gap", p.name, number, p.heard, after+1+i)
			break
		}
	}
	p.excused = false
}

// compareWithTruth wants each visit to have heard all that the stream holds
// between its two ends, once, in order, and nothing else.
func (p *soakPage) compareWithTruth() {
	truth := p.world.app.truth
	for i, v := range p.visits {
		from, to := soakID(v.from), soakID(v.to)
		if from == nil || to == nil {
			if len(v.items) > 0 {
				p.world.report("%s, visit %d from %s to %s: %d events without a place", p.name, i, v.from, v.to, len(v.items))
			}
			continue
		}
		begin, _ := slices.BinarySearchFunc(truth, from, func(e soakEntry, id []uint64) int { return slices.Compare(soakID(e.id), id) })
		var want []soakItem
		for _, e := range truth[begin:] {
			at := soakID(e.id)
			if slices.Compare(at, to) > 0 {
				break
			}
			if slices.Compare(at, from) > 0 && e.reaches(p.user, v.topics) {
				number := e.number
				if e.large {
					number = -1
				}
				want = append(want, soakItem{e.id, number})
			}
		}
		if !slices.Equal(v.items, want) {
			n := 0
			for n < min(len(want), len(v.items)) && want[n] == v.items[n] {
				n++
			}
			p.world.report("%s of user %s, topics %q, visit %d from %s to %s: %d events, want %d; after %d equal ones %v, want %v",
				p.name, p.user, v.topics, i, v.from, v.to, len(v.items), len(want), n, v.items[n:min(n+3, len(v.items))], want[n:min(n+3, len(want))])
		}
	}
}

// soakID is an id of a stream as numbers; nil: it is none.
func soakID(id string) []uint64 {
	ms, seq, _ := strings.Cut(id, "-")
	a, err1 := strconv.ParseUint(ms, 10, 64)
	b, err2 := strconv.ParseUint(seq, 10, 64)
	if cmp.Or(err1, err2) != nil {
		return nil
	}
	return []uint64{a, b}
}
