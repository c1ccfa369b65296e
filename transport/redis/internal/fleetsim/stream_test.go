package fleetsim_test

import (
	"strings"
	"sync/atomic"
	"time"

	"usercast/hub"
	"usercast/transport/redis/internal/fleetsim"
)

// A stream does what a stream of transport/sse does: it writes the frames of a client, pings and the last block.
type stream struct {
	node   *node
	conn   *fleetsim.Stream
	client *hub.Client

	last    string        // the last id that was written
	written time.Duration // time of the last write
	pingDue bool
	polled  bool // a long poll has sent a message or gap
	done    bool // Take has returned a reason

	interrupted atomic.Bool // a write that waits fails
}

func openStream(n *node, c *fleetsim.Stream) {
	s := &stream{node: n, conn: c}
	client, err := n.hub.Register(hub.Options{User: c.User, Groups: c.Groups, Topics: c.Topics, Resume: c.LastID, Consumer: s})
	switch {
	case err != nil && c.AcceptsEvents:
		c.Write(fleetsim.Block{Event: "busy", ID: c.LastID})
		c.End()
		return
	case err != nil:
		c.Reject()
		return
	}
	s.client, n.streams[c] = client, s
	if s.last = c.LastID; s.last == "" {
		s.last = n.text(client.Opening())
	}
	s.write(fleetsim.Block{Event: "open", ID: s.last})
	if c.Poll {
		n.process.After(20*time.Second, func() {
			if !s.done {
				client.Finish(hub.ReasonPoll)
			}
		})
	}
	s.arm()
	s.Wake()
}

func (s *stream) now() time.Duration { return time.Since(s.node.born) }

// Wake implements hub.Consumer. A writer is mostly free.
func (s *stream) Wake() {
	d := s.conn.Between(0, 3*time.Millisecond)
	switch {
	case s.conn.OneIn(20):
		d = s.conn.Between(0, 3*time.Second)
	case s.conn.OneIn(5):
		d = s.conn.Between(0, 400*time.Millisecond)
	}
	s.conn.AfterTimer(d, s.flush)
}

// Interrupt implements hub.Consumer.
func (s *stream) Interrupt() { s.interrupted.Store(true) }

// flush writes until Take returns nothing. While the socket is full, it continues later.
func (s *stream) flush() {
	for !s.done {
		if wait := s.conn.Blocked(); wait > 0 {
			s.conn.AfterTimer(wait, s.flush)
			return
		}
		if s.pingDue {
			s.pingDue = false
			s.ping()
		}
		answered := s.conn.Poll && s.polled
		frames, reason := s.client.Take(nil)
		switch {
		case reason != 0:
			s.done = true
			if !s.conn.OneIn(4) {
				s.finish(reason)
				return
			}
			s.conn.AfterTimer(s.conn.Between(0, 400*time.Millisecond), func() { s.finish(reason) })
			return
		case frames == nil:
			if answered {
				s.client.FinishIfServed(hub.ReasonPoll)
			}
			return
		}
		if wait := s.conn.Blocked(); wait > 0 || s.conn.OneIn(20) {
			wait = max(wait, s.conn.Between(0, 50*time.Millisecond))
			s.conn.AfterTimer(wait, func() {
				s.send(frames)
				s.flush()
			})
			return
		}
		s.send(frames)
	}
}

func (s *stream) send(frames []*hub.Frame) {
	delivered := len(frames)
	if s.interrupted.Load() {
		delivered = 0
	}
	for _, f := range frames[:delivered] {
		id, rest, _ := strings.Cut(string(f.Wire), "\n")
		gap, payload, _ := strings.Cut(rest, "\n")
		b := fleetsim.Block{Event: "message", ID: id, Payload: payload}
		if gap != "" {
			b.Event, b.Reason = "gap", gap
		}
		s.last, s.polled = id, true
		s.write(b)
	}
	s.client.Settle(frames, delivered)
}

func (s *stream) write(b fleetsim.Block) {
	s.written = s.now()
	s.conn.Write(b)
}

// arm schedules the next tick.
func (s *stream) arm() {
	wait := fleetsim.PingInterval - s.conn.Between(0, time.Second) - (s.now() - s.written)
	s.node.process.After(max(wait, time.Millisecond), s.tick)
}

// tick is called when a ping may be due.
func (s *stream) tick() {
	switch {
	case s.done:
	case s.isIdle():
		s.pingDue = true
		s.client.Nudge()
	default:
		s.arm()
	}
}

func (s *stream) isIdle() bool { return s.now()-s.written >= fleetsim.PingInterval*9/10 }

// ping writes a ping if the stream is still idle.
func (s *stream) ping() {
	id, ok := s.client.Position()
	if s.isIdle() {
		switch text := s.node.text(id); {
		case ok && text != s.last:
			s.last = text
			s.write(fleetsim.Block{Event: "ping", ID: text})
		case s.conn.PingEvents:
			s.write(fleetsim.Block{Event: "ping", ID: s.last})
		default:
			s.write(fleetsim.Block{})
		}
	}
	s.arm()
}

// finish writes the last block and closes the stream.
func (s *stream) finish(reason hub.Reason) {
	delete(s.node.streams, s.conn)
	id, ok := s.client.Position()
	text := s.node.text(id)
	switch {
	case s.interrupted.Load():
	case reason == hub.ReasonDrain && ok:
		s.conn.Write(fleetsim.Block{Event: "bye", ID: text})
	case reason == hub.ReasonDrain:
		s.conn.Write(fleetsim.Block{Event: "bye", ID: s.last})
	case reason == hub.ReasonPoll && !s.polled && ok && text != s.last:
		s.conn.Write(fleetsim.Block{Event: "ping", ID: text})
	}
	s.conn.End()
}
