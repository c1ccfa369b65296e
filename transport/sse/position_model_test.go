package sse_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/sse"
)

// A positionRun is one run of two hubs and several pages. The hubs either number messages themselves, or read the same
// log at different speeds. Pages connect to either hub, read at different speeds, lose their connection at any point, and
// reconnect with the id that a browser would send. Limits and times are random.
type positionRun struct {
	t       *testing.T
	random  *rand.Rand
	isLog   bool
	hubs    [2]*positionHub
	log     []positionEntry // content of the log, oldest first
	ever    []positionEntry // all entries that were ever in the log
	newest  uint64          // newest entry of the log
	trimmed uint64          // newest entry that is no longer in the log
	pages   []*positionPage
	trace   []string
}

// A positionEntry is a message or a gap. Its place is its number at one hub, or in the log.
type positionEntry struct {
	place       uint64
	user, topic string // user "": with a log, only its place counts
	gap         bool
	forAll      bool // a gap for all users and topics
}

type positionHub struct {
	*testServer
	listener *pipeListener
	boot     string
	entries  []positionEntry   // without a log
	newest   uint64            // without a log: the place of the last entry
	markers  map[string]uint64 // without a log: the places of its markers, and of its name
	cursor   uint64            // with a log: the last place that was read
	loaded   bool
	queries  chan *hub.Query // from writer goroutines
}

// A positionPage is one browser tab.
type positionPage struct {
	name   string
	user   string
	topics []string
	query  string
	poll   bool

	lastID   string       // what the browser sends when it reconnects
	issuedBy *positionHub // the hub that issued lastID; nil if the page invented it
	complete uint64       // the page has received everything up to this number of issuedBy
	awaitGap bool         // the page has not received a position yet, so a gap must come first

	// State of the open stream.
	at       *positionHub
	conn     net.Conn // nil if no stream is open
	buf      []byte   // bytes of an incomplete block
	head     bool     // the head of the response was read
	sent     string   // the id that it sent
	opened   time.Time
	unloaded bool   // the hub had not loaded its log
	ownID    string // the id that the hub must send back; "" if the page sent none
	blocks   int
	ended    bool // by bye, busy or the end of a poll
	entries  int  // messages and gaps
}

func (r *positionRun) note(format string, args ...any) {
	r.trace = append(r.trace, fmt.Sprintf(format, args...))
}

func (r *positionRun) fail(p *positionPage, format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("%s: %s\n%s", p.name, fmt.Sprintf(format, args...), strings.Join(r.trace, "\n"))
}

func (p *positionPage) concerns(e positionEntry) bool {
	if e.forAll {
		return true
	}
	return (e.user == p.user || e.user == "*") && (p.topics == nil || slices.Contains(p.topics, e.topic))
}

// reach advances a page to a place. Entries before it (with inclusive, also at it) that concern the page must have
// been sent.
func (r *positionRun) reach(p *positionPage, place uint64, inclusive bool, what string) {
	if place < p.complete {
		r.fail(p, "%s at %d, and it was complete up to %d", what, place, p.complete)
	}
	entries := p.at.entries
	if r.isLog {
		entries = r.ever
	}
	for _, e := range entries {
		if e.place > p.complete && (e.place < place || inclusive && e.place == place) && p.concerns(e) {
			r.fail(p, "%s at %d, and %d was not sent: %+v", what, place, e.place, e)
		}
	}
	p.complete = place
}

// place returns the place that corresponds to an id of a hub. For a hub without a log, it is the number of messages and, in
// the lower half, that of gaps since the last message.
func (r *positionRun) place(p *positionPage, id string) uint64 {
	name, digits, _ := strings.Cut(id, "-")
	marker, known := p.at.markers[name]
	if r.isLog {
		if digits != "0" && digits != strconv.FormatUint(math.MaxUint64, 10) {
			r.fail(p, "the id %q", id)
		}
		digits = name
	} else if !known {
		r.fail(p, "the id %q is not one of %s", id, p.at.boot)
	}
	digits, gap, _ := strings.Cut(digits, ".")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		r.fail(p, "the id %q", id)
	}
	if r.isLog {
		return n
	}
	var gaps uint64
	if gap != "" {
		boot, digits, _ := strings.Cut(gap, ".")
		if gaps, err = strconv.ParseUint(digits, 10, 32); err != nil || boot != p.at.boot {
			r.fail(p, "the id %q", id)
		}
	}
	if n == 0 {
		return max(marker, marker>>32<<32|gaps)
	}
	return (marker>>32+n)<<32 | gaps
}

// block processes a block of a stream.
func (r *positionRun) block(p *positionPage, text string) {
	r.note("%s gets %q", p.name, text)
	p.blocks++
	for strings.HasPrefix(text, ":\n") {
		text = text[2:]
	}
	var name, data, id string
	for line := range strings.Lines(text) {
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if id != "" {
			r.fail(p, "the id is not the last field of %q", text)
		}
		switch field {
		case "event":
			name = value
		case "data":
			data = value
		case "id":
			id = value
		}
	}
	switch {
	case name == "busy":
		p.ended = true
		if id != p.ownID || p.blocks > 1 {
			r.fail(p, "busy repeats %q, the client sent %q", id, p.sent)
		}
		p.cut() // the response has a length
		return
	case id == "" || data == "":
		r.fail(p, "the block %q", text)
	case p.blocks == 1:
		r.opening(p, name, id)
	case p.awaitGap && name != "gap":
		if own := p.ownID; id != own && !(own == "" && id == "unknown") || name != "ping" && name != "bye" {
			r.fail(p, "%s with %q before its gap; its own id is %q", name, id, own)
		}
	case name == "gap":
		r.gap(p, data, id)
	case name == "ping", name == "bye":
		r.reach(p, r.place(p, id), true, name)
	default:
		p.entries++
		if p.complete >= r.place(p, id) {
			r.fail(p, "a message at %s, and it was complete up to %d", id, p.complete)
		}
		r.reach(p, r.place(p, id), false, "a message")
	}
	p.ended = p.ended || name == "bye"
	if id != p.ownID {
		p.issuedBy = p.at
		if id == "unknown" {
			p.issuedBy = nil
		}
	}
	p.lastID = id
}

func (r *positionRun) opening(p *positionPage, name, id string) {
	switch {
	case name != "ping":
		r.fail(p, "it begins with %s", name)
	case p.ownID != "":
		if id != p.ownID {
			r.fail(p, "it begins with %q, its own id is %q", id, p.ownID)
		}
	case id == "unknown":
		if !p.unloaded {
			r.fail(p, "it begins without a position")
		}
		p.awaitGap = true
	default:
		p.complete, p.awaitGap = r.place(p, id), false
	}
}

func (r *positionRun) gap(p *positionPage, data, id string) {
	p.entries++
	place := r.place(p, id)
	switch reason := strings.TrimSuffix(strings.TrimPrefix(data, `{"reason":"`), `"}`); reason {
	case "unknown-id", "history-expired":
		if id == p.ownID {
			r.fail(p, "a gap carries the client's own id %q", id)
		}
		if reason == "unknown-id" && !p.awaitGap && !r.isLog { // a hub that lost a part of the log does not know its ids
			r.fail(p, "unknown-id, and its id was issued by a hub")
		}
		if !p.awaitGap && place < p.complete {
			r.fail(p, "a gap goes back to %d from %d", place, p.complete)
		}
		p.complete, p.awaitGap = place, false
	default: // for an entry, or for entries that were missed before the log was loaded
		if p.awaitGap {
			p.complete, p.awaitGap = place, false
			return
		}
		if !r.isLog { // the gap may have waited: then it has the position at that moment
			i := slices.IndexFunc(p.at.entries, func(e positionEntry) bool { return e.place > p.complete && p.concerns(e) })
			if i < 0 || !p.at.entries[i].gap || p.at.entries[i].place > place {
				r.fail(p, "a gap at %s, and it was complete up to %d", id, p.complete)
			}
			p.complete = p.at.entries[i].place
			r.reach(p, place, true, "the position of a gap")
			return
		}
		r.reach(p, place, false, "a gap")
	}
}

// read reads at most n bytes from a page's connection.
func (r *positionRun) read(p *positionPage, n int) {
	if p.conn == nil {
		return
	}
	synctest.Wait()
	b := make([]byte, n)
	p.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	n, err := p.conn.Read(b)
	p.buf = append(p.buf, b[:n]...)
	for {
		end := []byte("\n\n")
		if !p.head {
			end = []byte("\r\n\r\n")
		}
		block, rest, found := bytes.Cut(p.buf, end)
		if !found || p.conn == nil {
			break
		}
		p.buf = rest
		if p.head {
			r.block(p, string(block)+"\n")
		}
		p.head = true
	}
	if e, ok := err.(net.Error); p.conn != nil && err != nil && !(ok && e.Timeout()) {
		r.note("%s: its stream ends", p.name)
		p.cut()
	}
}

func (p *positionPage) cut() {
	if p.conn != nil {
		p.conn.Close()
	}
	p.conn, p.buf = nil, nil
}

func (r *positionRun) connect(p *positionPage) {
	p.at = r.hubs[r.random.IntN(2)]
	if r.random.IntN(20) == 0 {
		p.lastID = pick(r.random, "", "", "strange", "a b", "9-9", "abcdefgh-1", strings.Repeat("x", 129))
		p.issuedBy = nil
	}
	p.sent, p.ownID = p.lastID, p.lastID
	if p.sent == "a b" || len(p.sent) > 128 {
		p.ownID = "unknown"
	}
	// An id is known to the hub that issued it or, with a log, to all hubs.
	p.awaitGap = p.sent != "" && (p.issuedBy == nil || !r.isLog && p.issuedBy != p.at)
	p.buf, p.head, p.blocks, p.entries, p.ended = nil, false, 0, 0, false
	query := "user=" + p.user + p.query
	for _, topic := range p.topics {
		query += "&topic=" + topic
	}
	p.conn = p.at.listener.dial()
	var headers []string
	if p.sent != "" {
		headers = []string{"Last-Event-ID: " + p.sent}
	}
	r.note("%s of user %s connects to %s: %s, %q", p.name, p.user, p.at.boot, query, p.sent)
	p.conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := p.conn.Write([]byte(request(query, headers...))); err != nil {
		p.cut()
	}
	synctest.Wait() // until the stream is registered
	p.unloaded, p.opened = r.isLog && !p.at.loaded, time.Now()
}

func (r *positionRun) publish() {
	e := positionEntry{user: pick(r.random, "1", "2", "*"), topic: pick(r.random, "", "a")}
	if r.isLog {
		r.newest += 2 + r.random.Uint64N(3)
		e.place = r.newest
		if r.random.IntN(4) == 0 {
			e.user = ""
		}
		r.log, r.ever = append(r.log, e), append(r.ever, e)
		r.note("the log gets %+v", e)
		return
	}
	h := r.hubs[r.random.IntN(2)]
	switch r.random.IntN(6) {
	case 0:
		e.gap, e.forAll = true, true
	case 1:
		e.gap = true
	}
	if h.newest++; !e.forAll { // otherwise it does not count as a message
		h.newest = (h.newest>>32 + 1) << 32
	}
	e.place = h.newest
	h.entries = append(h.entries, e)
	r.note("%s gets %+v", h.boot, e)
	switch {
	case e.forAll:
		h.among(100, h.hub.Begin)
	case e.gap:
		h.hub.GapFor(hub.User(e.user), e.topic, hub.GapTooLarge)
	default:
		h.hub.Publish(hub.User(e.user), e.topic, fmt.Sprint("message ", e.place))
	}
}

// mark lets a hub receive a marker.
func (r *positionRun) mark(h *positionHub) {
	name := hub.NewMarkerName()
	h.markers[name.String()] = h.newest
	r.note("%s gets the marker %s at %d", h.boot, name, h.newest)
	h.hub.Mark(name)
}

// among announces a gap while the hub has n additional clients, so that it is spread over a second.
func (h *positionHub) among(n int, announce func()) {
	var clients []*hub.Client
	for i := range n {
		c, err := h.hub.Register(hub.Options{User: fmt.Sprint("other ", i), Consumer: idle{}})
		if err != nil {
			h.t.Fatal(err)
		}
		clients = append(clients, c)
	}
	announce()
	synctest.Wait()
	for _, c := range clients {
		c.End(hub.ReasonClosed)
	}
}

// before returns the last position before an entry.
func before(place uint64) hub.ID { return hub.ID{Ms: place - 1, Seq: math.MaxUint64} }

// follow lets a hub read the log.
func (r *positionRun) follow(h *positionHub, n int) {
	if !h.loaded {
		r.load(h)
		return
	}
	if h.cursor < r.trimmed {
		upTo := hub.ID{Ms: r.newest}
		if len(r.log) > 0 {
			upTo = before(r.log[0].place)
		}
		r.note("%s lost the log up to %v", h.boot, upTo)
		h.cursor = upTo.Ms
		h.among(100, func() { h.feed.Lose(upTo) })
	}
	for _, e := range r.log {
		if e.place > h.cursor && n > 0 {
			n--
			h.cursor = e.place
			r.note("%s reads %d", h.boot, e.place)
			h.feed.Append(hub.User(e.user), r.entry(e))
		}
	}
}

func (r *positionRun) load(h *positionHub) {
	window := r.log[len(r.log)-min(len(r.log), r.random.IntN(6)):]
	floor := hub.ID{Ms: r.newest}
	if len(window) > 0 {
		floor = before(window[0].place)
	}
	r.note("%s loads what is later than %v", h.boot, floor)
	h.loaded, h.cursor = true, r.newest
	h.feed.Load(floor, hub.ID{Ms: r.newest}, func(yield func(hub.Recipient, hub.Entry) bool) {
		for _, e := range window {
			if !yield(hub.User(e.user), r.entry(e)) {
				return
			}
		}
	})
}

func (r *positionRun) entry(e positionEntry) hub.Entry {
	return hub.Entry{ID: hub.ID{Ms: e.place}, Topic: e.topic, Payload: fmt.Sprint("message ", e.place)}
}

// answer answers a query of a hub with entries of the log.
func (r *positionRun) answer(h *positionHub) {
	var q *hub.Query
	select {
	case q = <-h.queries:
	default:
		return
	}
	after := q.After.Ms
	known := slices.ContainsFunc(r.log, func(e positionEntry) bool { return q.After == hub.ID{Ms: e.place} || q.After == before(e.place) })
	switch {
	case known, q.After == hub.ID{Ms: r.newest}, q.After == hub.ID{Ms: r.trimmed}:
	case after < r.trimmed:
		q.Answer(nil, hub.ID{}, hub.GapHistoryExpired)
		return
	default:
		q.Answer(nil, hub.ID{}, hub.GapUnknownID)
		return
	}
	covered, most := q.UpTo, 1+r.random.IntN(4)
	var entries []hub.Entry
	for _, e := range r.log {
		if e.place <= after || e.place > q.UpTo.Ms {
			continue
		}
		if e.user == q.User || e.user == "*" {
			entries = append(entries, r.entry(e))
		}
		if most--; most == 0 {
			covered = hub.ID{Ms: e.place}
			break
		}
	}
	if after >= q.UpTo.Ms {
		covered = q.After
	}
	r.note("%s gets %d entries after %d, up to %v", h.boot, len(entries), after, covered)
	q.Answer(entries, covered, 0)
}

func (r *positionRun) step() {
	h := r.hubs[r.random.IntN(2)]
	p := r.pages[r.random.IntN(len(r.pages))]
	switch step := r.random.IntN(20); {
	case step < 5:
		r.publish()
	case step < 8:
		if p.conn == nil {
			r.connect(p)
		}
	case step < 13:
		r.read(p, pick(r.random, 1, 20, 300, 10_000))
	case step < 14:
		if r.random.IntN(2) == 0 {
			r.note("%s is cut", p.name)
			p.cut()
		}
	case step < 16:
		time.Sleep(time.Duration(r.random.IntN(1200)) * time.Millisecond)
	case step < 17:
		if r.random.IntN(3) == 0 {
			r.note("%s disconnects user %s", h.boot, p.user)
			h.hub.Disconnect(p.user)
		}
	case !r.isLog:
		r.mark(h)
	case step < 18:
		if r.random.IntN(3) == 0 && len(r.log) > 0 {
			n := 1 + r.random.IntN(len(r.log))
			r.trimmed = r.log[n-1].place
			r.log = slices.Clone(r.log[n:])
			r.note("the log is trimmed up to %d", r.trimmed)
		}
	case step < 19:
		r.follow(h, 1+r.random.IntN(5))
	default:
		r.answer(h)
	}
}

func pick[T any](random *rand.Rand, values ...T) T { return values[random.IntN(len(values))] }

func runPositions(t *testing.T, seed uint64, isLog bool) {
	random := rand.New(rand.NewPCG(seed, 7))
	r := &positionRun{t: t, random: random, isLog: isLog}
	for i := range r.hubs {
		h := &positionHub{listener: newPipeListener(), boot: fmt.Sprint("hub ", i)}
		c := config{listener: h.listener, replaysAreLost: true}
		c.hub = hub.Config{
			HistoryPerUser: 1 + random.IntN(6), HistoryAge: pick(random, time.Hour, 3*time.Second), HistoryBytes: int64(300 + random.IntN(3000)),
			QueueFrames: pick(random, 2, 4, 100), FanOut: random.IntN(3), GapSpread: pick(random, 0, 2*time.Second),
			MaxClientsPerUser: pick(random, 1, 3, 3),
		}
		if isLog {
			h.queries = make(chan *hub.Query, 10_000)
			c.query = func(q *hub.Query) { h.queries <- q }
		}
		c.sse = sse.Config{
			Authenticate: auth.Insecure, PingInterval: time.Second, WriteTimeout: 2 * time.Second, MaxAge: pick(random, 0, 6*time.Second),
			Portable: true,
		}
		h.testServer = serve(t, c)
		if !isLog {
			h.boot = h.hub.Boot()
			h.markers = map[string]uint64{h.boot: 0}
		}
		r.hubs[i] = h
	}
	for i := range 3 {
		p := &positionPage{name: fmt.Sprint("page ", i), user: pick(random, "1", "2"), topics: pick(random, nil, []string{"a"})}
		p.query = pick(random, "", "&ping=event")
		if p.poll = random.IntN(3) == 0; p.poll {
			p.query += "&poll=1"
		}
		r.pages = append(r.pages, p)
	}
	for range 250 {
		r.step()
	}

	// At the end, everything must have been sent, including the position.
	for _, h := range r.hubs {
		for isLog && (!h.loaded || h.cursor < r.newest) {
			r.follow(h, 1000)
		}
	}
	for range 120 {
		time.Sleep(100 * time.Millisecond)
		for _, h := range r.hubs {
			r.answer(h)
		}
		for _, p := range r.pages {
			if p.conn == nil {
				r.connect(p)
			}
			r.read(p, 10_000)
		}
	}
	for _, p := range r.pages {
		newest := p.at.newest
		if isLog {
			newest = r.newest
		}
		// A stream that was open for two intervals has received a ping.
		if p.conn != nil && p.blocks > 0 && time.Since(p.opened) > 2500*time.Millisecond && (p.awaitGap || p.complete != newest) {
			r.fail(p, "complete up to %d at the end, want %d", p.complete, newest)
		}
		p.cut()
	}
}

// Invariant 15, with random runs: a stream does not receive an id before all messages and gaps up to that id. The
// opening block repeats the client's own id, and so do ping, bye and busy until a gap contains a new position. So
// wherever a connection breaks, messages are not lost without a gap.
func TestInvariant15NoIDBeforeWhatItCovers(t *testing.T) {
	runs := 25
	if testing.Short() {
		runs = 10
	}
	t.Parallel()
	for feed, isLog := range map[string]bool{"pubsub": false, "stream": true} {
		t.Run(feed, func(t *testing.T) {
			t.Parallel()
			for range runs {
				seed := rand.Uint64()
				if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { runPositions(t, seed, isLog) })
				}) {
					return
				}
			}
		})
	}
}
