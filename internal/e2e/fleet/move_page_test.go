package fleet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
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
	user   int
	topics []string // nil: all
	poll   bool
	accept string
	slow   bool

	// Owned by run.
	id       string
	due      int // all messages from this number on must be received; -1: it has not had an id so far
	received int // the newest message
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
		world: w, random: random, name: fmt.Sprint("page ", i), user: i % w.users, due: -1, received: -1,
		poll: i%5 == 0, slow: i%7 == 0, accept: "text/event-stream",
	}
	if i%2 == 0 {
		p.accept = "*/*"
	}
	if i%3 == 0 {
		p.topics = []string{"", "a"}
	}
	return p
}

// run visits hubs until the page is complete.
func (p *movePage) run() {
	for p.world.ctx.Err() == nil && !p.isComplete() {
		pause := p.visit()
		select {
		case <-p.world.ctx.Done():
		case <-time.After(pause):
		}
	}
}

// isComplete reports whether the page has received everything up to the last message.
func (p *movePage) isComplete() bool {
	next, done := p.world.size()
	return done && (p.received == next-1 || p.due == next)
}

// visit opens a stream and reads it to its end. It returns how long to wait before the next one.
func (p *movePage) visit() (pause time.Duration) {
	w := p.world
	pause = time.Duration(p.random.IntN(400)) * time.Millisecond
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
			p.opened(hub, e, stream.LastID)
		}
		p.id = stream.LastID
		switch e.Type {
		case "bye", "busy":
			w.count(e.Type)
			return pause
		case "gap":
			p.gap(moveGap{reason: e.Data, hub: hub, id: id, opened: opened, at: time.Now()})
		case "message":
			p.message(hub, e)
		}
		if p.due < 0 {
			p.due, _ = w.size()
			w.complete.Add(1)
		}
	}
	return 0
}

// request opens a stream. It returns nil if the hub has no room now.
func (p *movePage) request(conn net.Conn) (stream *eventstream.Reader, hub string, err error) {
	query := fmt.Sprint("user=", p.user)
	for _, topic := range p.topics {
		query += "&topic=" + url.QueryEscape(topic)
	}
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

// opened checks the first block of a stream.
func (p *movePage) opened(hub string, e eventstream.Event, id string) {
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
	case !m.reaches(p.user, p.topics):
		w.violation("%s of user %d, topics %q, @%s: message %d is to %+v", p.name, p.user, p.topics, hub, number, m)
	case number <= p.received:
		w.violation("%s@%s: message %d after %d, id %s", p.name, hub, number, p.received, e.ID)
	}
	if p.due >= 0 {
		p.missing(number, fmt.Sprintf("%s@%s: message %d, id %s,", p.name, hub, number, e.ID))
		p.due = max(p.due, number+1)
	}
	p.received = number
	w.count("messages")
}

// missing reports a message before a number that the page has not received.
func (p *movePage) missing(before int, what string) {
	for i, m := range p.world.between(p.due, before) {
		if m.reaches(p.user, p.topics) {
			p.world.violation("%s without %d, after %d", what, p.due+i, p.received)
			return
		}
	}
}

// gap records a gap. The page fetches its state: it has everything that was published before.
func (p *movePage) gap(g moveGap) {
	w := p.world
	w.count("gap " + g.reason)
	p.gaps = append(p.gaps, g)
	p.due, _ = w.size()
}

// finish checks the page at the end.
func (p *movePage) finish() {
	w := p.world
	if !p.isComplete() {
		next, _ := w.size()
		w.violation("%s: incomplete at the end: received up to %d, due %d of %d, id %s", p.name, p.received, p.due, next, p.id)
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
