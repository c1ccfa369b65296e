package fleet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"usercast/internal/eventstream"
	"usercast/internal/haproxytest"
	"usercast/internal/hubtest"
)

// A movePage is a page that connects to any hub. It knows what it must receive.
type movePage struct {
	world  *moveWorld
	random *rand.Rand
	name   string

	// Immutable.
	lone   bool // no other page has its user, and it sometimes stays away for a long time
	poll   bool
	accept string
	slow   bool

	// Owned by run.
	audience        // the groups change between two visits
	duty            // what it must receive
	id       string // "": none
	counted  bool   // it is among moveWorld.complete
	gaps     []moveGap
}

// A moveGap is a gap that was received. It is judged at the end, when the generations of the hubs are known.
type moveGap struct {
	reason, hub string
	id          string // with which the stream was opened
	opened, at  time.Time
}

func newMovePage(w *moveWorld, i int, random *rand.Rand) *movePage {
	p := &movePage{
		world: w, random: random, name: fmt.Sprint("page ", i), audience: audience{user: w.users[i]}, duty: newDuty(),
		lone: isLone(i), poll: i%5 == 0, slow: i%7 == 0, accept: "text/event-stream",
	}
	if i%2 == 0 {
		p.accept = "*/*"
	}
	if i%3 == 0 {
		p.topics = []string{"", "a"}
	}
	return p
}

// isLone reports whether no other page has the user of page i.
func isLone(i int) bool { return i%10 == 9 }

// run visits hubs until the page is complete.
func (p *movePage) run() {
	p.openTab()
	for p.world.ctx.Err() == nil && !p.isComplete() {
		pause := p.visit()
		if p.lone && p.counted && p.random.IntN(4) == 0 {
			p.stayAway()
		}
		select {
		case <-p.world.ctx.Done():
		case <-time.After(pause):
		}
	}
}

// stayAway waits for longer than the lease of a user, which is shorter than the history. Afterwards, the page reconnects,
// or it is opened again.
func (p *movePage) stayAway() {
	p.world.count("absences")
	select {
	case <-p.world.ctx.Done():
	case <-p.world.ended:
	case <-time.After(time.Duration(p.random.IntN(90)) * time.Second):
		if p.random.IntN(2) == 0 {
			p.openTab()
		}
	}
}

// openTab makes it a new page, which sometimes begins with a position that the app has requested from any hub. Then it
// must receive everything from there on.
func (p *movePage) openTab() {
	p.id, p.duty = "", newDuty()
	if p.random.IntN(2) == 0 {
		return
	}
	w := p.world
	id, ok := requestPosition(w.ctx, w.hubs[p.random.IntN(len(w.hubs))].Admin, p.user, w.violation)
	if !ok {
		w.count("no position")
		return
	}
	w.count("positions")
	p.id = id
	p.newest()
	p.complete(p.audience, p.position)
}

// newest records that the page has the newest position.
func (p *movePage) newest() { p.position, _ = p.world.size() }

// isComplete reports whether the page has received everything up to the last message.
func (p *movePage) isComplete() bool {
	next, done := p.world.size()
	return done && (p.received == next-1 || p.from != nil && p.begin() == next)
}

// visit opens a stream and reads it to its end. It returns how long to wait before the next one.
func (p *movePage) visit() (pause time.Duration) {
	w := p.world
	pause = time.Duration(p.random.IntN(400)) * time.Millisecond
	if p.random.IntN(3) == 0 {
		p.groups = randomGroups(p.random, w.groups)
	}
	p.open(p.audience)
	visit := w.presence.ask(p.user)
	defer w.presence.left(visit)
	conn, err := net.Dial("tcp", w.proxy.Addr())
	if err != nil {
		w.violation("%s: %v", p.name, err)
		return pause
	}
	defer conn.Close()
	if p.slow {
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	}
	stream, hub, err := p.request(conn)
	switch {
	case err != nil:
		w.count("connection failed")
		return pause
	case stream == nil:
		w.count("rejected")
		return pause
	}
	w.count("visits")
	moves := !w.isEnding() && p.random.IntN(3) > 0
	leave := time.Now().Add(time.Duration(p.random.IntN(8000)) * time.Millisecond)
	opened, id, blocks := time.Now(), p.id, 0
	for !p.isComplete() {
		if p.slow && !w.isEnding() && p.random.IntN(20) == 0 {
			time.Sleep(time.Duration(p.random.IntN(3000)) * time.Millisecond)
		}
		deadline := time.Now().Add(hubtest.Patience)
		if moves {
			deadline = leave
		}
		conn.SetReadDeadline(deadline)
		e, _, err := stream.Block()
		switch {
		case w.ctx.Err() != nil:
			return 0
		case errors.Is(err, os.ErrDeadlineExceeded) && moves:
			w.count("leaves")
			return pause
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.violation("%s@%s: no ping within %v", p.name, hub, hubtest.Patience)
			return pause
		case errors.Is(err, io.EOF) && p.poll:
			w.count("polls")
			return stream.Retry
		case err != nil:
			w.count("cut")
			return pause
		}
		if blocks++; blocks == 1 {
			p.checkOpening(hub, e, stream.LastID)
		}
		if e.Type != "busy" {
			w.presence.saw(visit)
		}
		p.id = stream.LastID
		p.newest()
		switch e.Type {
		case "bye", "busy":
			w.count(e.Type)
			return pause
		case "gap":
			p.gap(moveGap{reason: e.Data, hub: hub, id: id, opened: opened, at: time.Now()})
		case "message":
			p.message(hub, e)
		}
		if p.from == nil {
			p.complete(p.audience, p.position)
		}
		if !p.counted {
			p.counted = true
			w.complete.Add(1)
		}
	}
	return 0
}

// request opens a stream. It returns nil if the hub has no room now.
func (p *movePage) request(conn net.Conn) (stream *eventstream.Reader, hub string, err error) {
	query := p.query()
	if p.poll {
		query += "&poll=1"
	}
	header := ""
	if p.id != "" {
		header = "Last-Event-ID: " + p.id + "\r\n"
	}
	conn.SetDeadline(time.Now().Add(hubtest.Patience))
	_, err = fmt.Fprintf(conn, "GET /events?%s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n%s\r\n", query, conn.RemoteAddr(), p.accept, header)
	if err != nil {
		return nil, "", err
	}
	response, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), nil)
	if err != nil {
		return nil, "", err
	}
	hub = response.Header.Get(haproxytest.ServerHeader)
	switch response.StatusCode {
	case http.StatusOK:
		stream = eventstream.NewReader(response.Body)
		stream.LastID = p.id
		return stream, hub, nil
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if p.accept == "text/event-stream" && hub != "" && response.Header.Get("Retry-After") != "" {
			p.world.violation("%s@%s: %s for an EventSource", p.name, hub, response.Status)
		}
		return nil, hub, nil
	}
	p.world.violation("%s@%s: %s", p.name, hub, response.Status)
	return nil, hub, nil
}

// checkOpening checks the first block of a stream.
func (p *movePage) checkOpening(hub string, e eventstream.Event, id string) {
	switch {
	case e.Type != "ping" && e.Type != "busy":
		p.world.violation("%s@%s: a stream begins with %+v", p.name, hub, e)
	case p.id != "" && id != p.id, id == "" && e.Type == "ping":
		p.world.violation("%s@%s: a stream begins with id %q, the page sent %q", p.name, hub, id, p.id)
	}
}

func (p *movePage) message(hub string, e eventstream.Event) {
	w := p.world
	digits, _, _ := strings.Cut(e.Data, " ")
	number, err := strconv.Atoi(digits)
	m, ok := w.message(number)
	switch {
	case err != nil || !ok:
		w.violation("%s@%s: message %q", p.name, hub, e.Data)
		return
	case !p.includes(m):
		w.violation("%s of %+v @%s: message %d is to %+v", p.name, p.audience, hub, number, m)
	case number <= p.received:
		w.violation("%s@%s: message %d after %d, id %s", p.name, hub, number, p.received, e.ID)
	}
	if missing, ok := p.missing(p.audience, w.between(p.begin(), number)); ok {
		w.violation("%s of %+v @%s: message %d, id %s, without %d, after %d", p.name, p.audience, hub, number, e.ID, missing, p.received)
	}
	p.receive(number)
	w.count("messages")
}

// gap records a gap. The page fetches its state: it has everything that was published before.
func (p *movePage) gap(g moveGap) {
	w := p.world
	w.count("gap " + g.reason)
	p.gaps = append(p.gaps, g)
	p.complete(p.audience, p.position)
}

// finish checks the page at the end.
func (p *movePage) finish() {
	w := p.world
	if !p.isComplete() {
		next, _ := w.size()
		w.violation("%s: incomplete at the end: received up to %d, due %d of %d, id %s", p.name, p.received, p.begin(), next, p.id)
	}
	told := make(map[string]int)
	for _, g := range p.gaps {
		reason := strings.TrimSuffix(strings.TrimPrefix(g.reason, `{"reason":"`), `"}`)
		switch reason {
		case "redis-reconnect":
			if told[g.hub]++; told[g.hub] > w.observer.generationsOf(g.hub) {
				w.violation("%s@%s: %d gaps redis-reconnect, in %d generations", p.name, g.hub, told[g.hub], w.observer.generationsOf(g.hub))
			}
			fallthrough
		case "unknown-id":
			if w.observer.knew(g.hub, g.id, g.opened, g.at) {
				w.violation("%s@%s: unjustified gap %s at %v, the stream was opened at %v with id %q", p.name, g.hub, reason, g.at, g.opened, g.id)
			}
		default:
			w.violation("%s@%s: unjustified gap %s with id %q", p.name, g.hub, reason, g.id)
		}
	}
}
