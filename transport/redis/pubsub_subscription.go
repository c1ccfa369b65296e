package redis

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/resp"
	"usercast/transport/redis/internal/topology"
)

// A subscription is one connection of a PubSub.
type subscription struct {
	*PubSub
	link *topology.Conn
	end  context.CancelCauseFunc // ends it; the first cause is the reason

	// Set while the connection is made.
	primary topology.Identity
	since   time.Time // when it was confirmed

	avoiding failedNode // when it was opened

	// Owned by the receiving goroutine.
	settled bool // the control channel is subscribed to, or refused
	// knowsMarkers is set if markers count: the control channel is subscribed to, and the run_id of the server is known.
	knowsMarkers bool
	pinged       int64 // bytes received until the last request of a PING against the soft limit

	// sending is held while a command is written, so that commands are sent in the order of pending.
	sending sync.Mutex

	// Guarded by mu.
	mu      sync.Mutex
	pending []pendingCommand // commands without a reply so far; Redis replies in order

	// Between the receiving goroutine and the prober.
	echoes atomic.Bool            // the probe channel is subscribed to as well
	token  atomic.Pointer[string] // payload of the probe in flight
	echo   chan time.Time         // when the probe was received
	pong   chan struct{}          // Redis has replied to the PING that was sent after the probe
	noPing atomic.Bool            // PING is not allowed

	// Between the receiving goroutine and that of locate.
	answered atomic.Uint64 // newest ticket of which the answer was received
	replies  chan struct{} // one slot: answered has changed
	refusals chan struct{} // one slot: the question in flight was refused

	// From the receiving goroutine to that of confirm.
	unknown     atomic.Uint64 // newest ticket after whose answer markers are still unknown
	unconfirmed chan struct{} // one slot: unknown has changed

	// From the receiving goroutine to that of writeMarkers.
	due chan struct{} // one slot: a marker is due immediately
	// inFlight is the name of the newest published marker until it is received.
	inFlight atomic.Pointer[hub.MarkerName]

	large chan struct{} // from the receiving goroutine to clearSoftLimit; one slot

	// Set while the connection is made, then owned by the prober.
	owner   string // in a cluster, the primary that owns the slot of the control channel; "": unknown
	ownName string // another address of the subscribed node, which owns that slot

	oneOfSeveral atomic.Bool // the address leads to other servers as well
}

// A pendingCommand is a command that Redis has not replied to.
type pendingCommand struct {
	kind    commandKind
	ticket  uint64 // of askByPing and askByPattern
	token   string // of pingProbe: the payload of the probe that was sent before
	pattern string // of subscribePattern and askByPattern
}

type commandKind int

const (
	noCommand commandKind = iota
	subscribePattern
	subscribeControl
	subscribeProbe
	pingOnly     // the reply shows that the connection works, or makes Redis check the soft limit
	pingProbe    // see awaitEcho
	askByPing    // see locate
	askByPattern // another subscription to a pattern in place of a PING
)

func newSubscription(p *PubSub, end context.CancelCauseFunc) *subscription {
	return &subscription{
		PubSub: p, end: end,
		echo: make(chan time.Time, 1), pong: make(chan struct{}, 1), large: make(chan struct{}, 1),
		replies: make(chan struct{}, 1), refusals: make(chan struct{}, 1), unconfirmed: make(chan struct{}, 1), due: make(chan struct{}, 1),
	}
}

// open connects, sends the subscriptions, and reads until Redis has replied to those to the patterns and to the control
// channel. The generation begins with the first of these replies.
func (s *subscription) open(ctx context.Context) error {
	// In a cluster, all hubs subscribe to the same node.
	s.avoiding = s.failed
	s.link = s.server.NewConn(ctx, topology.Target{Prefer: s.cfg.ControlChannel, Not: s.avoiding.avoid()}, func(ctx context.Context, cn *goredis.Conn) error {
		var err error
		s.primary, err = topology.Introduce(ctx, cn, s.missing)
		s.asking.Lock()
		defer s.asking.Unlock()
		s.servers.Saw(s.primary, s.probeEvery)
		return err
	})
	s.link.Keep = s.cfg.MaxPayload
	err := s.subscribe()
	if s.link.Denied != nil {
		s.missing(acl.PermissionClusterInfo, s.link.Denied)
	}
	if s.link.SlotsDenied != nil {
		s.missing(acl.PermissionClusterSlots, s.link.SlotsDenied)
	}
	s.owner = s.link.Owner(s.cfg.ControlChannel)
	timeout := time.AfterFunc(s.server.AnswerTimeout(), func() { s.end(topology.FaultUnresponsive) })
	defer timeout.Stop()
	for err == nil && !s.settled {
		err = s.receiveBatch()
	}
	if err != nil {
		s.failed = s.failed.next(s.link.Addr)
	}
	s.since = time.Now()
	if err == nil && s.member != nil {
		s.markless.Store(!s.knowsMarkers)
		s.subscribedAt.CompareAndSwap(0, int64(s.now()))
		if s.primary.RunID == "" {
			s.report.runIDUnknown()
		}
	}
	return err
}

// subscribe connects and sends the subscriptions.
func (s *subscription) subscribe() error {
	// The patterns come before the control channel: what other hubs count after a marker must be counted here too (R1). They
	// are in one command, so that no message is published between two of them (R3).
	var patterns []pendingCommand
	for _, pattern := range s.patterns {
		patterns = append(patterns, pendingCommand{kind: subscribePattern, pattern: pattern})
	}
	if err := s.send(func() error { return s.link.PSubscribe(s.patterns...) }, patterns...); err != nil {
		return err
	}
	if err := s.send(func() error { return s.link.Subscribe(s.cfg.ControlChannel) }, pendingCommand{kind: subscribeControl}); err != nil {
		return err
	}
	return s.send(func() error { return s.link.Subscribe(s.probeChannel) }, pendingCommand{kind: subscribeProbe})
}

// send sends a command, and records the replies that it will have. Any goroutine may call it, except the receiving one after
// open: it must not wait for a write.
func (s *subscription) send(write func() error, replies ...pendingCommand) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	s.pending = append(s.pending, replies...)
	s.mu.Unlock()
	return write()
}

// ping sends a PING.
func (s *subscription) ping(c pendingCommand, payload ...string) error {
	return s.send(func() error { return s.link.Ping(payload...) }, c)
}

// receive is the path of a message: it receives one batch after another, and lets the streams write
// before it waits again.
func (s *subscription) receive(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() { s.watch(ctx) })
	watching.Go(func() { s.clearSoftLimit(ctx) })
	if s.member != nil {
		watching.Go(func() { s.locate(ctx) })
		watching.Go(func() { s.confirm(ctx) })
		if s.knowsMarkers {
			watching.Go(func() { s.writeMarkers(ctx) })
		}
	}
	for {
		if err := s.receiveBatch(); err != nil {
			if cause := context.Cause(ctx); cause == topology.FaultUnresponsive || cause == topology.FaultNoEcho || topology.IsTimeout(cause) {
				s.failed = s.failed.next(s.link.Addr)
			}
			return err
		}
	}
}

// receiveBatch waits for a message, and passes it and all others that have arrived to the hub.
func (s *subscription) receiveBatch() error {
	received, err := s.link.Receive()
	s.cfg.Streams.Cork()
	err = s.handle(received, err)
	for err == nil && s.link.Ready() {
		err = s.handle(s.link.Receive()) // does not wait: the message has arrived
	}
	s.cfg.Streams.Uncork()
	s.countReceived()
	return err
}

// handle processes what was received. An error ends the connection.
func (s *subscription) handle(received any, err error) error {
	switch {
	case err == nil:
	case acl.IsReply(err):
		return s.refused(err)
	default:
		return err
	}
	switch m := received.(type) {
	case *goredis.Message:
		// Pattern is empty if the message matches a subscribed channel instead of a pattern.
		switch {
		case m.Pattern != "":
			if !slices.Contains(s.patterns, m.Pattern) {
				return topology.BadReply("a message for another pattern")
			}
			s.route(m.Channel, m.Payload)
		case m.Channel == s.probeChannel:
			s.probeEcho(m.Payload)
		case m.Channel == s.cfg.ControlChannel:
			command, marker, err := parseControlMessage(m.Payload)
			if marker != nil {
				s.receiveMarker(*marker)
				return nil
			}
			s.handleControl(command, err, s.cfg.Control)
		default:
			return topology.BadReply("a message for another channel")
		}
	case *goredis.Subscription:
		return s.subscribed(m)
	case *goredis.Pong:
		switch c := s.replied(); c.kind {
		case pingOnly:
		case pingProbe:
			s.probePong(c.token)
		case askByPing:
			s.received(c.ticket)
		default:
			return topology.BadReply("a reply to a PING that was not sent")
		}
	}
	return nil
}

// route passes one message to the hub. It does not allocate. A payload over MaxPayload and a
// channel over resp.MinKeep have been truncated, see resp.CheckedConn.
func (p *PubSub) route(channel, payload string) {
	p.count.received.Add(1)
	if p.member != nil {
		p.member.Count(channel, payload)
	}
	to, topic, ok := p.cfg.Channels.Split(channel)
	switch {
	case !ok:
		p.cfg.Hub.Skip()
		p.count.malformed.Add(1)
	case len(payload) > p.cfg.MaxPayload, len(channel) > resp.MinKeep:
		p.cfg.Hub.GapFor(to, topic, hub.GapTooLarge)
		p.count.tooLarge.Add(1)
	case p.cfg.Hub.Publish(to, topic, payload) > 0:
		p.count.routed.Add(1)
	default:
		p.count.unrouted.Add(1)
	}
}

// replied returns the command that was replied to, or noCommand if no command is pending.
func (s *subscription) replied() (c pendingCommand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) > 0 {
		c, s.pending = s.pending[0], s.pending[1:]
	}
	return c
}

// subscribed handles a confirmation.
func (s *subscription) subscribed(to *goredis.Subscription) error {
	command := s.replied()
	want := map[commandKind][2]string{
		subscribePattern: {"psubscribe", command.pattern},
		askByPattern:     {"psubscribe", command.pattern},
		subscribeControl: {"subscribe", s.cfg.ControlChannel},
		subscribeProbe:   {"subscribe", s.probeChannel},
	}
	if want[command.kind] != [2]string{to.Kind, to.Channel} {
		return topology.BadReply("a confirmation of a subscription that was not requested")
	}
	switch command.kind {
	case subscribePattern:
		if command.pattern != s.patterns[0] {
			return nil // the generation has begun
		}
		// As soon as clients learn of the new generation, the app may publish.
		s.server.Renew()
		// Also the first time: open streams may have missed messages.
		if s.member != nil {
			s.member.Begin(s.primary.RunID, s.patterns)
		} else {
			s.cfg.Hub.Begin()
		}
	case subscribeControl:
		s.settled = true
		if s.member != nil {
			s.member.Subscribed()
			s.knowsMarkers = s.primary.RunID != ""
		}
	case subscribeProbe:
		s.echoes.Store(true)
	case askByPattern:
		s.received(command.ticket)
	}
	return nil
}

// refused handles an error reply. It returns an error if the subscription needs the command.
func (s *subscription) refused(err error) error {
	command := s.replied()
	switch command.kind {
	case noCommand:
		return err
	case subscribePattern:
		return s.server.Denied(err, "subscribe to "+strings.Join(s.patterns, " and "), acl.PermissionPatterns(s.patterns).Grant)
	case subscribeControl:
		s.settled = true
		s.missing(acl.PermissionControl(s.cfg.ControlChannel), err)
	case subscribeProbe:
		s.missing(acl.PermissionProbeSubscribe(s.probeChannel), err)
	case askByPattern:
		poke(s.refusals)
	default: // a PING
		if !acl.IsTemporary(err) {
			s.noPing.Store(true)
			s.missing(acl.PermissionPing, err)
		}
		switch command.kind {
		case pingProbe:
			s.probePong(command.token) // an error reply is in order, too
		case askByPing:
			poke(s.refusals)
		}
	}
	return nil
}

// describe returns no role in a cluster, where a replica receives all that a primary receives. The
// attributes contain the address if it differs from the server's name, and a failing cluster state.
func (s *subscription) describe() (role string, attrs []any) {
	if !s.server.IsCluster() {
		role = s.primary.Role
	}
	if s.link.Addr != s.server.Name() {
		attrs = append(attrs, "address", s.link.Addr)
	}
	if s.link.State == "fail" {
		attrs = append(attrs, "cluster_state", s.link.State)
	}
	return role, attrs
}

func (s *subscription) addr() string { return s.link.Addr }
func (s *subscription) close()       { s.link.Close() }
