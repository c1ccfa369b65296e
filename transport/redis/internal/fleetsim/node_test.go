package fleetsim_test

import (
	"strconv"
	"strings"
	"testing/synctest"
	"time"

	"usercast/hub"
	"usercast/transport/redis/internal/fleet"
	"usercast/transport/redis/internal/fleetsim"
)

// A node is a hub in the simulated world. It does what transport/redis and internal/app do, without sockets.
type node struct {
	process *fleetsim.Process
	hub     *hub.PubSub
	member  *fleet.Member // nil: it knows no markers
	born    time.Time
	streams map[*fleetsim.Stream]*stream

	generation int
	inFlight   hub.MarkerName // own marker that was published and not received; zero: none
	retried    bool           // the marker before was lost, too
	ticket     uint64         // of the PING in flight; 0: none
	lookingUp  bool
	lookedUp   time.Duration // when the last look-up began
}

func startNode(p *fleetsim.Process) fleetsim.Node {
	n := &node{process: p, born: time.Now(), streams: make(map[*fleetsim.Stream]*stream)}
	n.hub = hub.NewPubSub(hub.Config{
		Encode:         encode,
		BroadcastUser:  fleetsim.BroadcastUser,
		QueueFrames:    p.QueueFrames,
		QueueGrace:     250*time.Millisecond + 170*time.Microsecond,
		FanOut:         p.FanOut,
		GapSpread:      1100 * time.Microsecond, // streams that wake later spread it, too
		HistoryPerUser: p.HistoryPerUser,
		HistoryBytes:   p.HistoryBytes,
		HistoryAge:     p.HistoryAge,
	})
	if !p.Old && p.Feeds() == 1 {
		n.member = fleet.NewMember(fleet.Config{
			Places: &places{PubSub: n.hub, process: p}, Name: p.Name, Version: "1", Load: func() (streams, users int) { return len(n.streams), 0 },
		})
		n.hub.AwaitPlaces(func() { p.After(0, func() { n.locate(p.Feed()) }) })
	}
	return n
}

// places counts the announcements of a member for the oracle.
type places struct {
	*hub.PubSub
	process *fleetsim.Process
	missed  bool // the next marker announces it
}

func (p *places) Begin() {
	p.missed = false
	p.PubSub.Begin()
}

func (p *places) Miss(after hub.MarkerName) {
	p.process.Say("has missed messages after %s", p.process.Readable(after.String()))
	p.process.NoticeLoss()
	p.missed = true
	p.PubSub.Miss(after)
}

func (p *places) Mark(name hub.MarkerName) {
	if p.missed {
		p.missed = false
		p.process.Say("announces missed")
		p.process.CountMissed()
	}
	p.PubSub.Mark(name)
}

func (p *places) Doubt(after hub.MarkerName) {
	p.process.Say("doubts ids after %s", p.process.Readable(after.String()))
	p.process.CountMissed()
	p.PubSub.Doubt(after)
}

// encode encodes an entry as lines: id, gap, payload.
func encode(dst []byte, e hub.Entry, _ bool) []byte {
	dst = append(e.AppendID(dst), '\n')
	if e.Gap != 0 {
		dst = append(dst, e.Gap.String()...)
	}
	return append(append(dst, '\n'), e.Payload...)
}

func (n *node) text(id hub.ID) string { return string(n.hub.AppendID(nil, id)) }

func (n *node) Boot() string { return n.hub.Boot() }

func (n *node) Begin(f *fleetsim.Feed) {
	n.generation++
	n.inFlight, n.retried, n.ticket, n.lookingUp = hub.MarkerName{}, false, 0, false
	if n.member == nil {
		n.hub.Begin()
	} else {
		n.member.Begin(f.RunID(), n.process.Patterns)
		n.locate(f)
	}
	n.settle()
}

// Subscribed publishes a marker immediately, and then every 10 s.
func (n *node) Subscribed(f *fleetsim.Feed) {
	if n.member == nil {
		return
	}
	n.member.Subscribed()
	generation := n.generation
	var again func()
	again = func() {
		if n.generation == generation {
			n.mark(f)
			n.process.After(n.process.Between(9*time.Second, 11*time.Second), again)
		}
	}
	again()
}

// mark publishes a marker. If it does not arrive, it is followed by another one.
func (n *node) mark(f *fleetsim.Feed) {
	m, ok := n.member.Write(n.now())
	if !ok {
		return
	}
	n.inFlight = m.Name
	f.Publish(string(fleet.AppendMarker(nil, m)), m.Name.String(), m.RunID)
	n.process.After(3*time.Second, func() {
		if n.inFlight == m.Name && !n.retried {
			n.retried = true
			n.mark(f)
		}
	})
}

func (n *node) now() time.Duration { return time.Since(n.born) }

func (n *node) Lost(*fleetsim.Feed) { n.generation++ }

func (n *node) Message(_ *fleetsim.Feed, channel, payload string) {
	if n.member != nil {
		n.member.Count(channel, payload)
	}
	name, isUser := strings.CutPrefix(channel, strings.TrimSuffix(fleetsim.UserPattern, "*"))
	name, isGroup := strings.CutPrefix(name, strings.TrimSuffix(fleetsim.GroupPattern, "*"))
	name, topic, _ := strings.Cut(name, fleetsim.TopicSeparator)
	to := hub.Recipient{Name: name, Group: isGroup}
	switch {
	case isUser == isGroup:
		n.process.Fail("a message to %s", channel)
	case name == "":
		n.hub.Skip()
	case len(payload) > n.process.MaxPayload:
		n.hub.GapFor(to, topic, hub.GapTooLarge)
	default:
		n.hub.Publish(to, topic, payload)
	}
	n.settle()
}

func (n *node) Control(f *fleetsim.Feed, payload string) {
	if n.member == nil {
		return
	}
	m, err := fleet.ParseMarker(payload)
	if err != nil {
		n.process.Fail("%v: %s", err, payload)
		return
	}
	if m.Name == n.inFlight {
		n.inFlight, n.retried = hub.MarkerName{}, false
	}
	if report := n.member.Receive(m, n.now()); report.Mismatch != nil {
		n.mark(f)
	}
	n.settle()
}

// placePing is the payload of a PING, before the ticket.
const placePing = "usercast-place "

// locate finds the places of the clients that wait for them. One PING is in flight at a time.
func (n *node) locate(f *fleetsim.Feed) {
	if n.ticket != 0 {
		return
	}
	if n.ticket = n.hub.Waiting(); n.ticket != 0 {
		f.Ping(placePing + strconv.FormatUint(n.ticket, 10))
	}
}

func (n *node) Pong(f *fleetsim.Feed, payload string) {
	if payload != placePing+strconv.FormatUint(n.ticket, 10) {
		return // of the generation before
	}
	ticket := n.ticket
	n.ticket = 0
	if n.hub.Received(ticket) {
		n.lookUp(f, ticket)
	}
	n.locate(f)
	n.settle()
}

// lookUp checks that new connections reach the server of the subscription, at most once per second.
func (n *node) lookUp(f *fleetsim.Feed, ticket uint64) {
	if n.lookingUp {
		return // the clients that wait now ask again
	}
	n.lookingUp = true
	generation := n.generation
	n.process.After(n.lookedUp+time.Second-n.now(), func() {
		n.lookedUp = n.now()
		f.LookUp(func(runID string) {
			switch {
			case n.generation != generation:
				return
			case runID == "":
				n.lookingUp = false
				n.lookUp(f, ticket)
				return
			case f.RunID() != "" && runID != f.RunID():
				f.Reconnect("it is subscribed to another server")
				return
			}
			n.lookingUp = false
			n.hub.Confirmed(ticket)
			n.settle()
		})
	})
}

func (n *node) Open(c *fleetsim.Stream) { openStream(n, c) }

func (n *node) Disconnected(c *fleetsim.Stream) {
	if s := n.streams[c]; s != nil {
		delete(n.streams, c)
		s.client.End(hub.ReasonClosed)
	}
}

func (n *node) Drain() {
	n.Leave()
	n.hub.Refuse()
	for _, c := range n.process.Streams() {
		n.process.After(n.process.Between(0, 3*time.Second), func() {
			if s := n.streams[c]; s != nil {
				s.client.Finish(hub.ReasonDrain)
			}
		})
	}
}

// Leave publishes a marker with what this hub has received.
func (n *node) Leave() {
	if n.member != nil && n.process.Feed().Connected() {
		n.mark(n.process.Feed())
	}
}

func (n *node) Close() { n.hub.Close() }

// settle waits until the hub's goroutine has distributed a broadcast, so that a run depends only on its seed.
func (n *node) settle() {
	if n.process.FanOut < n.hub.Stats().Clients {
		synctest.Wait()
	}
}
