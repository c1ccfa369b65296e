package redis

import (
	"context"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/fleet"
	"usercast/transport/redis/internal/pause"
	"usercast/transport/redis/internal/resp"
	"usercast/transport/redis/internal/topology"
)

const (
	// defaultMarkEvery is the time between two markers, ±10 %.
	defaultMarkEvery = 10 * time.Second
	// defaultEchoWithin is how long a marker may take until the subscription receives it. A demoted primary executes
	// PUBLISH too, but no hub receives the message.
	defaultEchoWithin = 3 * time.Second
	// markedWithin is how long a hub that has just subscribed waits for its first marker before it is ready (R20).
	markedWithin = 5 * time.Second
)

// errMarkerLost means that a marker was published, but not received.
var errMarkerLost = &topology.Fault{
	Reason: "lost", Problem: "a marker was published, but this hub did not receive it",
	Advice: "no action needed, publishing over a new connection",
}

// WriteMarker publishes a marker: what this hub has received so far. It returns when the marker is published or could not
// be, or when ctx ends; immediately if the feed writes no markers now. A hub that is about to exit calls it (R13), so that
// other hubs can find what they have missed, and before its last streams end, so that these take a recent id along.
func (p *PubSub) WriteMarker(ctx context.Context) {
	if !p.marking.Load() {
		return
	}
	written := make(chan struct{})
	select {
	case p.writeNow <- written:
	case <-ctx.Done():
		return
	}
	select {
	case <-written:
	case <-ctx.Done():
	}
}

// isMarked reports whether pages can move to this hub without a gap: a marker was received, or none is expected (R20). It
// never becomes false again, because a hub must stay ready while Redis is down.
func (p *PubSub) isMarked() bool {
	if p.member == nil || p.marked.Load() {
		return true
	}
	first := p.subscribedAt.Load()
	if first == 0 {
		return false
	}
	own, anyHub := p.member.Marked()
	if own || anyHub && p.mute.Load() || p.markless.Load() || p.now() > time.Duration(first)+markedWithin {
		p.marked.Store(true)
		return true
	}
	return false
}

// A markerWriter publishes the markers of one subscription over a separate connection.
type markerWriter struct {
	*subscription
	link *topology.Conn // nil: not connected
	w    *resp.Writer
	r    *resp.Reader
	last bool // the last marker was published and received
}

// writeMarkers publishes a marker when the hub has just subscribed, every 10 s, when this hub has missed messages, and when
// WriteMarker is called. A marker that cannot be published or does not arrive is followed by another one over a new
// connection, but only by one: Redis may be busy.
func (s *subscription) writeMarkers(ctx context.Context) {
	s.marking.Store(true)
	defer s.marking.Store(false)
	m := &markerWriter{subscription: s, last: true}
	defer m.hangUp()
	next, late := time.NewTimer(0), time.NewTimer(s.cfg.echoWithin)
	late.Stop()
	for {
		var written chan<- struct{}
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-s.due:
		case written = <-s.writeNow:
		case <-late.C:
			if s.inFlight.Load() == nil {
				m.last = true
				s.report.markerReceived()
				continue
			}
			m.hangUp()
			if !m.failed(errMarkerLost) {
				continue
			}
		}
		next.Reset(pause.Jitter(s.cfg.markEvery))
		late.Reset(s.cfg.echoWithin)
		err := m.write(ctx)
		if written != nil {
			close(written)
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		m.hangUp()
		late.Stop()
		if m.failed(err) {
			next.Reset(pause.Jitter(s.cfg.echoWithin))
		}
	}
}

// failed reports whether a marker was lost for the first time in a row. The second time, it logs the reason: the first
// time, the subscription may be about to end as well.
func (m *markerWriter) failed(err error) (first bool) {
	if !m.last {
		m.report.markerFailed(m.server.Fault(err, false))
	}
	first, m.last = m.last, false
	return first
}

// write publishes one marker, in one attempt: a marker that Redis delivers twice would stand for two places (R2). After an
// error, it may have been published; the next one has another name.
func (m *markerWriter) write(ctx context.Context) error {
	if m.link == nil {
		if err := m.dial(ctx); err != nil {
			return err
		}
	}
	marker, ok := m.member.Write(m.now())
	if !ok {
		return nil
	}
	m.inFlight.Store(&marker.Name)
	m.r.Command = "PUBLISH"
	m.w.Command(m.r.Command, m.cfg.ControlChannel, string(fleet.AppendMarker(nil, marker)))
	if err := m.w.Flush(); err != nil {
		return err
	}
	reply, err := m.r.Reply()
	if err == nil && reply.Kind != ':' {
		err = m.r.Bad("not a number")
	}
	if m.mute.Store(acl.IsReply(err) && !acl.IsTemporary(err)); m.mute.Load() {
		m.inFlight.Store(nil) // it will not arrive
	}
	return acl.Optional(err, acl.PermissionMarker(m.cfg.ControlChannel), m.missing)
}

// dial connects. In a cluster, it connects to the node of the subscription, as the other hubs do.
func (m *markerWriter) dial(ctx context.Context) error {
	link := m.server.NewConn(ctx, topology.Target{Addr: m.subscription.link.Addr}, func(ctx context.Context, cn *goredis.Conn) error {
		return topology.SetName(ctx, cn, m.missing)
	})
	link.Patience = m.server.AnswerTimeout()
	socket, err := link.Socket()
	if err != nil {
		link.Close()
		return err
	}
	m.link, m.r, m.w = link, resp.NewReader(socket), resp.NewWriter(socket, m.server.AnswerTimeout(), 4096)
	return nil
}

// hangUp closes the connection.
func (m *markerWriter) hangUp() {
	if m.link != nil {
		m.link.Close()
		m.link = nil
	}
}

// receiveMarker processes a marker that the subscription has received. The receiving goroutine calls it.
func (s *subscription) receiveMarker(marker fleet.Marker) {
	if s.member == nil {
		return
	}
	report := s.member.Receive(marker, s.now())
	if report.Mismatch != nil {
		s.report.messagesMissed(*report.Mismatch)
		poke(s.due)
	}
	if report.Differs != nil {
		s.report.hubDiffers(*report.Differs, report.Patterns, s.cfg.Channels, s.cfg.Version)
	}
	if name := s.inFlight.Load(); name != nil && *name == marker.Name {
		s.inFlight.CompareAndSwap(name, nil)
	}
}
