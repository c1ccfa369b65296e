package fleetsim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Node is the hub in a process. All methods are called on the goroutine of World.Run.
type Node interface {
	// Boot returns the random name of the process in its ids.
	Boot() string

	// Begin is called when the patterns are subscribed to: a new generation. Subscribed is called when the control
	// channel is, too.
	Begin(f *Feed)
	Subscribed(f *Feed)
	// Lost is called when the connection has ended.
	Lost(f *Feed)
	// Message, Control and Pong pass on what the subscription received.
	Message(f *Feed, channel, payload string)
	Control(f *Feed, payload string)
	Pong(f *Feed, payload string)

	// Open opens a stream. Disconnected is called when the process notices that the page has disconnected.
	Open(s *Stream)
	Disconnected(s *Stream)
	// Drain is called at the start of a shutdown, Leave directly before its end.
	Drain()
	Leave()
	// Close is called after the process has ended. It stops timers.
	Close()
}

// A Process is a process of the operating system that runs a Node.
type Process struct {
	world *World
	node  Node
	feeds []*Feed

	alive, frozen, draining bool
	deferred                []func() // what is due since the process is frozen
	streams                 []*Stream

	// Immutable: the configuration of the hub.
	Name       string
	Patterns   []string
	Mute       bool // it is not allowed to publish
	NoRunID    bool // it is not allowed to read the run_id
	Old        bool // a version that does not know markers
	MaxPayload int
	Limits

	// For the oracle.
	generations int   // how many generations began
	link        *link // of the newest generation
	missed      int   // how often the hub announced missed, or doubted ids
}

// Limits are the limits of the history and of queues.
type Limits struct {
	HistoryPerUser int
	HistoryBytes   int64
	HistoryAge     time.Duration
	QueueFrames    int
	FanOut         int
}

// smallMaxPayload is the usual maximum size of a payload in bytes.
const smallMaxPayload = 100

// PingInterval is how long a stream is idle before it gets a ping.
const PingInterval = 15 * time.Second

// A Feed is the subscription of a process to one Redis.
type Feed struct {
	process *Process
	index   int   // number of the --redis
	link    *link // nil: not connected
}

func (w *World) newProcess(name string) *Process {
	p := &Process{
		world: w, Name: name, alive: true, Patterns: []string{GroupPattern, UserPattern}, MaxPayload: smallMaxPayload,
		Limits: Limits{HistoryPerUser: 1 << 20, HistoryBytes: 8 << 20, HistoryAge: 2*time.Minute + 300*time.Microsecond},
	}
	p.QueueFrames = pick(w.random, []int{4, 32, 1024})
	p.FanOut = pick(w.random, []int{1, 512, 512})
	if w.oneIn(3) {
		p.MaxPayload = 50 * smallMaxPayload // hubs may differ: all of them count a message that is too large
	}
	w.class.configure(w, p)
	for i := range w.primaries {
		p.feeds = append(p.feeds, &Feed{process: p, index: i})
	}
	p.node = w.start(p)
	w.name(p.node.Boot(), "boot")
	w.say("%s starts: %s, patterns %q, mute %t, without run_id %t, old %t, %+v",
		name, w.name(p.node.Boot(), ""), p.Patterns, p.Mute, p.NoRunID, p.Old, p.Limits)
	w.processes = append(w.processes, p)
	for _, f := range p.feeds {
		f.dial()
	}
	return p
}

// Say adds a line to the story.
func (p *Process) Say(format string, args ...any) {
	if p.world.trace {
		p.world.say("%s: %s", p.Name, fmt.Sprintf(format, args...))
	}
}

// Readable returns an id or a name for the story.
func (p *Process) Readable(id string) string {
	if !p.world.trace {
		return ""
	}
	return strings.TrimSuffix(p.world.readable(id), "-")
}

// Streams returns the open streams.
func (p *Process) Streams() []*Stream { return slices.Clone(p.streams) }

// After runs f after a time, unless the process has ended. While it is frozen, f has to wait.
func (p *Process) After(d time.Duration, f func()) { p.world.after(d, func() { p.do(f) }) }

func (p *Process) do(f func()) {
	switch {
	case !p.alive:
	case p.frozen:
		p.deferred = append(p.deferred, f)
	default:
		f()
	}
}

// Every runs f regularly, ±10 %.
func (p *Process) Every(d time.Duration, f func()) {
	var again func()
	again = func() {
		f()
		p.After(d+p.world.between(-d/10, d/10), again)
	}
	p.After(p.world.between(d/2, d), again)
}

// Between returns a random duration.
func (p *Process) Between(low, high time.Duration) time.Duration { return p.world.between(low, high) }

// HasGroups reports whether the process subscribes to the channels of groups.
func (p *Process) HasGroups() bool { return slices.Contains(p.Patterns, GroupPattern) }

// Feeds returns the number of subscriptions, Feed the first one.
func (p *Process) Feeds() int { return len(p.feeds) }

func (p *Process) Feed() *Feed { return p.feeds[0] }

// Fail records a violation.
func (p *Process) Fail(format string, args ...any) {
	p.world.fail("%s: %s", p.Name, fmt.Sprintf(format, args...))
}

// CountMissed counts an announcement of the gap missed, and each set of ids that the hub doubts.
func (p *Process) CountMissed() { p.missed++ }

// NoticeLoss is called when the hub notices that it has missed messages.
func (p *Process) NoticeLoss() {
	if p.world.lostAt > 0 && !p.frozen {
		p.world.result.Unnoticed = max(p.world.result.Unnoticed, p.world.Now()-p.world.lostAt)
		p.world.lostAt = 0
	}
}

// Connected reports whether the feed has a connection.
func (f *Feed) Connected() bool { return f.link != nil }

// RunID returns the run_id of the server that the feed is connected to; "": unknown.
func (f *Feed) RunID() string {
	if f.process.NoRunID || f.link == nil {
		return ""
	}
	return f.link.server.name
}

// Publish publishes a marker over a new connection. name and runID are in the payload, too.
func (f *Feed) Publish(payload, name, runID string) {
	p, w := f.process, f.process.world
	if p.Mute {
		return
	}
	m := &markerPlace{name: w.name(name, "m"), runID: runID, patterns: strings.Join(p.Patterns, " ")}
	w.after(w.between(1*unit, 20*unit), func() {
		s := w.primaries[f.index]
		m.at = w.Now()
		if !s.publish(item{control: payload, marker: m}) {
			return
		}
		if w.markers[name] != nil {
			w.fail("%s has published %s twice", p.Name, m.name)
		}
		w.markers[name] = m
		p.Say("%s is in %s at %d", m.name, s.name, s.order)
	})
}

// Ping sends a PING on the subscription. Its reply arrives behind everything that was published before.
func (f *Feed) Ping(payload string) {
	w, l := f.process.world, f.link
	if l == nil {
		return
	}
	w.after(w.between(1*unit, 20*unit), func() {
		if l.server.up && l.patterns != nil { // otherwise, the new generation asks again
			l.push(item{pong: payload})
		}
	})
}

// LookUp connects to the address of Redis, and returns the run_id of that server, or "" if it is down.
func (f *Feed) LookUp(found func(runID string)) {
	w := f.process.world
	f.process.After(w.between(1*unit, 100*unit), func() {
		s := w.primaries[f.index]
		if !s.up {
			found("")
			return
		}
		found(s.name)
	})
}

// dial connects to Redis and subscribes: all patterns with one command, then the control channel.
func (f *Feed) dial() {
	p, w := f.process, f.process.world
	if !p.alive || f.link != nil {
		return
	}
	s := w.primaries[f.index]
	if !s.up || p.frozen {
		w.after(w.between(100*unit, 500*unit), f.dial)
		return
	}
	l := newLink(f, s)
	f.link = l
	s.links = append(s.links, l)
	patterns := w.between(1*unit, 100*unit)
	w.after(patterns, func() {
		if s.up && !l.cut {
			l.patterns = p.Patterns
			l.push(item{confirm: (*link).confirmPatterns})
		}
	})
	w.after(patterns+w.between(0, 300*unit), func() {
		if s.up && !l.cut {
			l.control = true
			order := s.order
			l.push(item{confirm: func(l *link) { l.confirmControl(order) }})
		}
	})
}

func (l *link) confirmPatterns() {
	p := l.feed.process
	p.generations++
	p.link = l
	l.began = p.world.Now()
	p.Say("generation %d, at %s", p.generations, l.server.name)
	p.node.Begin(l.feed)
}

func (l *link) confirmControl(order int) {
	l.subscribed = order
	l.feed.process.node.Subscribed(l.feed)
}

// Reconnect ends the connection.
func (f *Feed) Reconnect(why string) {
	if f.link == nil || !f.process.alive {
		return
	}
	f.process.Say("the subscription has ended: %s", why)
	f.link.cut, f.link = true, nil
	f.process.node.Lost(f)
	f.process.world.after(f.process.world.between(50*unit, 800*unit), f.dial)
}

// noticeLater ends a connection unless that has happened meanwhile.
func (l *link) noticeLater(d time.Duration, why string) {
	f := l.feed
	f.process.After(d, func() {
		if f.link == l {
			f.Reconnect(why)
		}
	})
}

// freeze stops the process for a time.
func (p *Process) freeze(d time.Duration) {
	p.Say("freezes")
	p.frozen = true
	p.world.after(d, func() {
		if !p.alive {
			return
		}
		p.Say("continues")
		p.frozen = false
		for _, f := range p.feeds {
			if f.link != nil {
				f.link.deliver()
			}
		}
		for len(p.deferred) > 0 {
			f := p.deferred[0]
			p.deferred = p.deferred[1:]
			f()
		}
	})
}

// drain shuts the process down.
func (p *Process) drain() {
	p.Say("drains")
	p.draining = true
	p.node.Drain()
	p.After(8900*unit, p.node.Leave)
	p.world.after(9*time.Second, func() { p.end("drained") })
}

// end ends the process. What it has written still arrives; its streams are reset.
func (p *Process) end(why string) {
	if !p.alive {
		return
	}
	w := p.world
	p.Say("ends: %s", why)
	p.alive, p.deferred = false, nil
	for _, f := range p.feeds {
		if f.link != nil {
			f.link.cut, f.link = true, nil
		}
	}
	p.node.Close()
	for _, s := range slices.Clone(p.streams) {
		w.after(w.between(0, 200*unit), s.reset)
	}
}
