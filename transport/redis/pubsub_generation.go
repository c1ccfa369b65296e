package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// generation is the life of one subscription connection.
type generation struct {
	feed *PubSub
	link *link
	end  context.CancelCauseFunc // ends it; the first cause is why

	// Set during log-in, before the other goroutines start.
	primary identity

	// Owned by the receiving goroutine.
	awaited []awaited // commands sent and not answered yet; Redis answers in order
	since   time.Time // when the subscription was confirmed; zero before

	// Between the receiving goroutine and the others.
	confirmed chan struct{}          // closed with the confirmation of the pattern
	echoes    atomic.Bool            // the probe channel is subscribed to as well
	token     atomic.Pointer[string] // payload of the probe under way
	echo      chan time.Time         // when it came back
	passed    chan struct{}          // what was sent after it came back
	noPing    atomic.Bool            // PING is refused

	// Owned by the prober.
	several bool // the address leads to other servers as well
}

// awaited is a command whose answer is under way.
type awaited int

const (
	awaitNone awaited = iota
	awaitPattern
	awaitControl
	awaitProbe
)

// generation makes one connection, subscribes, and hands over messages until
// something ends it. It returns how long the subscription stood, zero if it
// never did, and why it ended.
func (p *PubSub) generation(ctx context.Context) (lived time.Duration, err error) {
	ctx, end := context.WithCancelCause(ctx)
	g := &generation{
		feed:      p,
		end:       end,
		confirmed: make(chan struct{}),
		echo:      make(chan time.Time, 1),
		passed:    make(chan struct{}, 1),
	}
	// Whatever was wrong with a node of a cluster: try another.
	g.link = p.cfg.Server.newLinkTo(ctx, target{not: p.left}, func(ctx context.Context, cn *goredis.Conn) error {
		var err error
		g.primary, err = introduce(ctx, cn, p.missing)
		p.servers.saw(g.primary, p.cfg.ProbeEvery)
		return err
	})
	g.link.waiting, g.link.keep = p.cfg.Waiting, p.cfg.MaxPayload
	var wg sync.WaitGroup
	defer g.link.close()
	defer wg.Wait()
	defer end(nil)

	err = g.subscribe(ctx)
	p.left = g.link.addr
	if g.link.denied != nil {
		p.missing(rightClusterInfo, g.link.denied)
	}
	if err == nil {
		wg.Go(func() { g.watch(ctx) })
		wg.Go(func() { g.probe(ctx) })
		err = g.receive(ctx)
		p.cfg.Waiting() // it may have ended in the middle of a batch
	}
	p.count.connected.Store(false)
	p.cfg.Server.renew()
	if !g.since.IsZero() {
		lived = time.Since(g.since)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause // the socket was cut for it; err only tells of the cut
	}
	return lived, err
}

// subscribe connects and sends the subscriptions. Redis confirms them in order.
func (g *generation) subscribe(ctx context.Context) error {
	p := g.feed
	// Without deadlines of the caller's: one in ctx would become the socket's.
	ctx = context.WithoutCancel(ctx)
	// The control channel before the pattern: whoever is connected hears orders.
	if p.cfg.Control != nil {
		if err := g.link.pubsub.Subscribe(ctx, p.cfg.ControlChannel); err != nil {
			return g.link.why(err)
		}
		g.awaited = append(g.awaited, awaitControl)
	}
	if err := g.link.pubsub.PSubscribe(ctx, p.pattern); err != nil {
		return g.link.why(err)
	}
	g.awaited = append(g.awaited, awaitPattern)
	g.awaited = append(g.awaited, awaitProbe)
	return g.link.pubsub.Subscribe(ctx, p.probeChannel)
}

// receive reads until the connection ends. It is the only caller of the sinks.
func (g *generation) receive(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	for {
		received, err := g.link.receive(ctx)
		if err != nil {
			if !isReply(err) {
				return err
			}
			if err := g.refused(err); err != nil {
				return err
			}
			continue
		}
		switch m := received.(type) {
		case *goredis.Message:
			// What the pattern brought has it; what a channel's own name brought has none.
			switch {
			case m.Pattern == g.feed.pattern:
				g.feed.route(m.Channel, m.Payload)
			case m.Pattern != "":
				return badReply("a message of another pattern")
			case m.Channel == g.feed.probeChannel:
				g.probed(m.Payload)
			case m.Channel == g.feed.cfg.ControlChannel:
				g.feed.ordered(m.Payload)
			default:
				return badReply("a message of another channel")
			}
		case *goredis.Subscription:
			if err := g.subscribed(m); err != nil {
				return err
			}
		case *goredis.Pong:
			g.overtaken(m.Payload)
		}
	}
}

// route hands one message over. It allocates nothing itself. A payload over MaxPayload and
// a channel over minKeep have been cut, see replyConn.
func (p *PubSub) route(channel, payload string) {
	p.count.received.Add(1)
	user, topic, ok := SplitChannel(p.cfg.ChannelPrefix, channel)
	switch {
	case !ok:
		p.count.malformed.Add(1)
	case len(payload) > p.cfg.MaxPayload, len(channel) > minKeep:
		p.cfg.TooLarge(user, topic)
		p.count.tooLarge.Add(1)
	case p.cfg.Publish(user, topic, payload) > 0:
		p.count.routed.Add(1)
	default:
		p.count.unrouted.Add(1)
	}
}

// ordered takes what came in on the control channel, to which anyone may publish
// who has the right.
func (p *PubSub) ordered(payload string) {
	p.count.controlReceived.Add(1)
	order, err := ParseControl(payload)
	if err != nil {
		p.count.controlMalformed.Add(1)
		p.report.malformedOrder(err)
		return
	}
	p.cfg.Control(order)
}

// answered takes the command that a confirmation or a refusal answers; awaitNone
// when none is awaited.
func (g *generation) answered() (command awaited) {
	if len(g.awaited) > 0 {
		command, g.awaited = g.awaited[0], g.awaited[1:]
	}
	return command
}

func (g *generation) subscribed(to *goredis.Subscription) error {
	p := g.feed
	command := g.answered()
	want := map[awaited][2]string{
		awaitPattern: {"psubscribe", p.pattern},
		awaitControl: {"subscribe", p.cfg.ControlChannel},
		awaitProbe:   {"subscribe", p.probeChannel},
	}
	if want[command] != [2]string{to.Kind, to.Channel} {
		return badReply("a confirmation of what was not subscribed to")
	}
	switch command {
	case awaitPattern:
		p.cfg.Server.renew() // what was made before may lead elsewhere
		g.since = time.Now()
		n := p.count.generation.Add(1)
		p.count.connected.Store(true)
		p.cfg.Subscribed(n)
		p.report.subscribed(n, g.standing(), g.where()...)
		close(g.confirmed)
	case awaitProbe:
		g.echoes.Store(true)
	}
	return nil
}

// standing is the role that matters: in a cluster a replica hears all that a
// primary hears.
func (g *generation) standing() (role string) {
	if g.feed.cfg.Server.cluster != nil {
		return ""
	}
	return g.primary.role
}

// where says which node it is, when the server's name does not, and whether all is
// well with it.
func (g *generation) where() (attrs []any) {
	if g.link.addr != g.feed.cfg.Server.Name() {
		attrs = append(attrs, "address", g.link.addr)
	}
	if g.link.state == "fail" {
		attrs = append(attrs, "cluster_state", g.link.state)
	}
	return attrs
}

// refused takes an error reply, and returns an error if we cannot go on with it.
func (g *generation) refused(err error) error {
	p := g.feed
	switch g.answered() {
	case awaitPattern:
		// For PSUBSCRIBE the ACL compares patterns letter by letter.
		return p.cfg.Server.denied(err, "subscribe to "+p.pattern, "+psubscribe &"+p.pattern)
	case awaitControl:
		p.missing(rightControl(p.cfg.ControlChannel), err)
	case awaitProbe:
		p.missing(rightProbeSubscribe(p.probeChannel), err)
	default:
		g.noPing.Store(true)
		p.missing(rightPing, err)
	}
	return nil
}

func (p *PubSub) missing(which right, err error) {
	p.report.missing(which, p.cfg.Server.userName(), err)
}
