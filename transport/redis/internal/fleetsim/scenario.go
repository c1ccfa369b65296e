package fleetsim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// A Class is a kind of run: which faults occur, and which hubs there are.
type Class struct {
	Name string

	cuts       int  // how often connections to Redis are cut, in elevenths of the faults
	kills      bool // any process may be killed; otherwise only if two others remain
	restarts   bool // Redis is replaced, and the old one is gone
	replaces   bool // Redis is replaced, and the old one stays: some hubs notice late
	replicates bool // and follows the new one
	loses      bool // one link loses messages and markers
	limited    bool // histories are small
	idle       bool // few messages, over a long time
	mixed      bool // some hubs have other patterns, or lack permissions
	old        bool // some hubs do not know markers
	servers    int  // of --redis; 0: 1
}

// Classes are all classes.
var Classes = []Class{
	{Name: "clean"}, // no connection to Redis fails
	{Name: "faults", cuts: 2, kills: true, restarts: true, mixed: true},
	{Name: "lossy", loses: true},
	{Name: "failover", replaces: true},
	{Name: "replica", replaces: true, replicates: true},
	{Name: "limits", cuts: 1, limited: true},
	{Name: "quiet", idle: true},
	{Name: "upgrade", cuts: 1, old: true},
	{Name: "several", cuts: 1, servers: 2},
}

// configure sets the configuration of a process.
func (c *Class) configure(w *World, p *Process) {
	if c.limited {
		p.HistoryPerUser = 3 + w.random.IntN(28)
		p.HistoryBytes = int64(1+w.random.IntN(12)) << 10
		p.HistoryAge = 8*time.Second + 300*time.Microsecond
	}
	if c.mixed {
		if w.oneIn(6) {
			p.Patterns = []string{UserPattern}
		}
		p.Mute = w.oneIn(8)
		p.NoRunID = w.oneIn(10)
	}
	p.Old = c.old && w.oneIn(3)
}

// newMessage publishes a message.
func (w *World) newMessage() {
	m := &Message{number: len(w.messages) + 1, feed: w.random.IntN(len(w.primaries))}
	size := 10
	if w.oneIn(50) {
		size = 1000
	}
	pattern := UserPattern
	switch r := w.random.IntN(24); {
	case r == 0: // malformed
		pattern = pick(w.random, []string{UserPattern, GroupPattern})
	case r < 3:
		m.user = BroadcastUser
	case r < 6:
		m.user = fmt.Sprint("absent", w.random.IntN(9))
	case r == 6:
		pattern, m.group = GroupPattern, pick(w.random, []string{"absent0", "absent1", "u0", BroadcastUser}) // without members
	case r < 13:
		pattern, m.group = GroupPattern, pick(w.random, groups)
	default:
		m.user = fmt.Sprint("u", w.random.IntN(3))
	}
	m.channel = strings.TrimSuffix(pattern, "*") + m.user + m.group
	if w.oneIn(2) {
		m.topic = pick(w.random, []string{"a", "b"})
		m.channel += TopicSeparator + m.topic
	}
	m.payload = fmt.Sprint(m.number, " ", strings.Repeat("x", size))
	s := w.primaries[m.feed]
	if !s.up {
		return
	}
	w.messages = append(w.messages, m)
	w.say("message %d to %s, %d bytes", m.number, m.channel, size)
	for _, p := range w.pages {
		p.published(m)
	}
	s.publish(item{message: m})
}

// fault causes a random fault.
func (w *World) fault() {
	running := w.running()
	p := pick(w.random, running)
	if p == nil {
		w.newProcess(fmt.Sprint("H", len(w.processes)))
		return
	}
	c := &w.class
	f := pick(w.random, p.feeds)
	switch r := w.random.IntN(11); {
	case r == 0 && len(running) < 4:
		w.newProcess(fmt.Sprint("H", len(w.processes)))
	case r == 1 && (len(running) > 2 || c.kills) && !c.loses: // a hub that is killed cannot report what others lost
		p.end("killed")
	case r == 2 && len(running) > 2 && p != w.lossy:
		p.drain()
	case r == 3 && f.link != nil:
		f.link.lag = pick(w.random, []time.Duration{5 * unit, 50 * unit, 500 * unit, 4000 * unit})
		w.say("%s: lag up to %v", p.Name, f.link.lag)
	case r == 4 && !p.frozen:
		p.freeze(w.between(200*unit, 6*time.Second))
	case (r == 5 || r == 6) && r-5 < c.cuts && f.link != nil:
		l := f.link
		w.say("the connection of %s is cut, %d items are in flight", p.Name, len(l.items))
		l.cut = true
		l.items = l.items[:w.random.IntN(len(l.items)+1)]
		l.noticeLater(w.between(10*unit, 9*time.Second), "cut")
	case (r == 5 || r == 6) && c.loses && f.link != nil:
		if w.lossy == nil {
			w.lossy = p // the rules do not cover several links that lose messages at a time
		}
		if p == w.lossy {
			f.link.drop = 1 + w.random.IntN(2)
		}
	case r == 7 && (c.restarts || c.replaces) && w.primaries[f.index].up:
		w.replace(f.index)
	}
}

// replace replaces a Redis by a new process with another run_id.
func (w *World) replace(index int) {
	old := w.primaries[index]
	s := w.newServer(false)
	w.primaries[index] = s
	w.say("%s is replaced by %s; it stays: %t", old.name, s.name, w.class.replaces)
	w.after(w.between(10*unit, 3*time.Second), func() { s.up = true })
	if w.class.replicates {
		w.after(w.between(3*time.Second, 5*time.Second), func() { s.replica = old })
	}
	old.up = w.class.replaces
	for _, l := range old.links {
		if l.feed.link != l {
			continue
		}
		notice := w.between(10*unit, 500*unit)
		if old.up {
			notice = w.between(10*unit, 30*time.Second)
		} else {
			l.cut = true
		}
		l.noticeLater(notice, "the server was replaced")
	}
}

// Run runs the world with a seed. It must be called in a bubble of testing/synctest. start returns the hub of a new
// process.
func Run(seed uint64, class Class, trace bool, start func(*Process) Node) Result {
	w := &World{
		class: class, random: rand.New(rand.NewPCG(seed, 0)), start: start, began: time.Now(), trace: trace,
		markers: make(map[string]*markerPlace), aliases: make(map[string]string), result: Result{Gaps: make(map[string]int)},
	}
	for range max(1, class.servers) {
		w.primaries = append(w.primaries, w.newServer(true))
	}
	for i := range 2 + w.random.IntN(2) {
		w.newProcess(fmt.Sprint("H", i))
	}
	end, pause, faultPause := w.between(15*time.Second, 90*time.Second), w.between(30*unit, 800*unit), w.between(500*unit, 5*time.Second)
	stay := 12 * time.Second
	if class.idle { // longer than markers are kept
		end, pause, faultPause = w.between(200*time.Second, 900*time.Second), w.between(5*time.Second, 120*time.Second), time.Minute
		stay *= 24
	}
	for i := range 2 + w.random.IntN(4) {
		p := w.newPage(i)
		w.pages = append(w.pages, p)
		w.after(w.between(0, end/2), p.connect)
		p.roam(stay)
	}
	w.repeat(500*unit, end+500*unit, 2*pause, w.newMessage)
	w.repeat(w.between(500*unit, 6*time.Second), end, faultPause, w.fault)
	w.after(end, w.endFaults)
	w.run(end + 75*time.Second)
	for _, p := range w.pages {
		p.finish()
	}
	for _, p := range w.processes {
		if p.alive {
			p.alive = false
			p.node.Close()
		}
	}
	w.result.Violations, w.result.Story, w.result.Messages = w.violations, w.story, len(w.messages)
	return w.result
}

// repeat runs f from a time on and up to another, with pauses of up to a duration.
func (w *World) repeat(first, end, pause time.Duration, f func()) {
	var again func()
	again = func() {
		if w.Now() < end {
			f()
			w.after(w.between(1*unit, pause), again)
		}
	}
	w.after(first, again)
}

// endFaults ends all faults: within a minute, each page must be complete.
func (w *World) endFaults() {
	w.ending = true
	w.say("the faults end")
	for _, p := range w.processes {
		for _, f := range p.feeds {
			if f.link != nil {
				f.link.lag, f.link.drop = 20*unit, 0
			}
		}
	}
	if len(w.running()) == 0 {
		w.newProcess("last")
	}
}
