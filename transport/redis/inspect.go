package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/advice"
)

// An Inspection looks whether a Redis is fit for a hub, and says what to change where it is
// not. What it does there is harmless to others, and little: it asks (INFO, CONFIG GET, PUBSUB,
// XINFO), subscribes for a moment to what a hub subscribes to, and publishes two messages
// of some 40 bytes: one on a probe channel of its own, which no hub hears, and one to a user
// with a random name, who has no streams. Nothing is stored, and nothing is set but the
// name of its own connections.
type Inspection struct {
	Server         *Server
	ChannelPrefix  string
	ControlChannel string
	StreamKey      string // of the stream feed; "": pub/sub
	MaxPayload     int
}

// Run tells all that it finds. It stops early when Redis cannot be talked to.
func (i Inspection) Run(ctx context.Context, tell advice.Tell) {
	in := &inspector{Inspection: i, tell: tell, token: rand.Text()}
	err := in.ask(ctx, target{key: i.StreamKey}, in.question)
	// As a hub does, which takes a failing cluster when there is no better node.
	for tries := i.Server.hosts(); errors.Is(err, faultCutOff) && tries > 0; tries-- {
		err = in.ask(ctx, target{key: i.StreamKey}, in.question)
	}
	if err == nil && i.StreamKey == "" {
		err = in.trip(ctx)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		in.broken(err)
	default:
		in.rights()
	}
}

// inspector is one Inspection under way.
type inspector struct {
	Inspection
	tell  advice.Tell
	token string // tells our messages from all others

	version version
	state   string // of a cluster: "ok", "fail"
	denied  bool   // the node would not tell that state
	refused bool   // some right is missing
	unheard bool   // the pattern was refused, and nothing can come back
}

// broken says why Redis cannot be talked to.
func (i *inspector) broken(err error) {
	f := i.Server.fault(err, false)
	text := f.problem
	if f.err != nil {
		text += " (" + f.err.Error() + ")"
	}
	i.tell.Fail("redis-"+f.reason, f.advice, "%s", text)
}

// ask runs one question on a connection of its own.
func (i *inspector) ask(ctx context.Context, to target, question func(context.Context, *goredis.Conn) error) error {
	var l *link
	l = i.Server.newLinkTo(ctx, to, func(ctx context.Context, cn *goredis.Conn) error {
		if i.state = l.state; l.denied != nil && !i.denied {
			i.denied = true
			i.missing(advice.Warn, rightClusterInfo, l.denied)
		}
		return question(ctx, cn)
	})
	return l.use(ctx)
}

// question asks all that takes no subscription. A refusal is a finding; an error means
// that the connection is of no use.
func (i *inspector) question(ctx context.Context, cn *goredis.Conn) error {
	if err := i.try(rightName, cn.ClientSetName(ctx, clientName).Err()); err != nil {
		return err
	}
	start := time.Now()
	if err := i.try(rightPing, cn.Ping(ctx).Err()); err != nil {
		return err
	}
	took := time.Since(start)
	if err := i.server(ctx, cn, took); err != nil {
		return err
	}
	if i.StreamKey != "" {
		return i.log(ctx, cn)
	}
	if err := i.buffers(ctx, cn); err != nil {
		return err
	}
	return i.crowd(ctx, cn)
}

// try makes a finding of the refusal of a command that a hub can do without.
func (i *inspector) try(r right, err error) error {
	return optional(err, r, func(r right, err error) { i.missing(advice.Warn, r, err) })
}

// info is a section of INFO, or "" when redis will not tell, which is told once.
func (i *inspector) info(ctx context.Context, cn *goredis.Conn, section string) (string, error) {
	return info(ctx, cn, section, func(r right, err error) {
		if section == "server" {
			i.missing(advice.Warn, r, err)
		}
	})
}
