package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// readCount is how many entries one XREAD or XRANGE brings at most: of 1 MiB each they are
// 200 MiB, of a few hundred bytes a round trip is still a small part of the work.
const readCount = 200

// generation makes one connection and reads until something ends it. It returns
// how long it could read, and why it ended.
func (l *Log) generation(ctx context.Context) (lived time.Duration, err error) {
	ctx, end := context.WithCancelCause(ctx)
	r := &logReader{Log: l, token: rand.Text()}
	cn := l.cfg.Server.newLinkFor(ctx, l.cfg.Key, func(ctx context.Context, c *goredis.Conn) (err error) {
		r.server, err = introduce(ctx, c, l.missing)
		r.named()
		return err
	})
	cn.patience = l.cfg.Block + l.cfg.Server.answerTimeout
	var wg sync.WaitGroup
	defer cn.close()
	defer wg.Wait()
	defer end(nil)

	r.client = cn.client
	err = r.begin(ctx)
	primary := r.server
	var since time.Time
	if err == nil {
		since = time.Now()
		l.count.connected.Store(true)
		l.report.subscribed(l.count.generation.Add(1), primary.role)
		wg.Go(func() { l.probe(ctx, primary, end) })
		for err == nil {
			err = r.next(ctx)
		}
		lived = time.Since(since)
	} else {
		err = cn.why(err)
	}
	l.count.connected.Store(false)
	if cause := context.Cause(ctx); cause != nil {
		err = cause // the socket was cut for it; err only tells of the cut
	}
	return lived, err
}

// logReader reads over one connection.
type logReader struct {
	*Log
	client *goredis.Client // its link bounds how long Redis may be silent
	server identity        // as it was last asked
	token  string          // random; stands for a server that may not be asked
}

// begin loads the window on the first connection, and looks on every later one
// whether the log still is what it was.
func (r *logReader) begin(ctx context.Context) (err error) {
	if !r.loaded {
		return r.load(ctx)
	}
	return r.look(ctx)
}

// next waits for entries and hands them over.
func (r *logReader) next(ctx context.Context) error {
	streams, err := r.client.XRead(context.WithoutCancel(ctx), &goredis.XReadArgs{
		Streams: []string{r.cfg.Key, r.cursor.String()}, Count: readCount, Block: r.cfg.Block,
	}).Result()
	if errors.Is(err, goredis.Nil) { // nothing came
		return r.idle(ctx)
	}
	if err != nil {
		return err
	}
	for _, s := range streams {
		entries, err := r.readAll(s.Messages)
		if err != nil {
			return err
		}
		if err := r.check(ctx, entries); errors.Is(err, errReset) {
			return nil
		} else if err != nil {
			return err
		}
		for _, e := range entries {
			r.take(e)
		}
		r.primary = r.server
		r.cfg.Waiting()
	}
	return nil
}

// take hands one entry over.
func (l *Log) take(e Entry) {
	switch {
	case e.order != "":
		l.count.controlReceived.Add(1)
		if order, err := ParseControl(e.order); err != nil {
			l.count.controlMalformed.Add(1)
			l.report.malformedOrder(err)
		} else {
			l.cfg.Control(order)
		}
		l.cfg.Skip(e.ID)
	case e.User == "":
		l.count.received.Add(1)
		l.cfg.Skip(e.ID)
		l.count.malformed.Add(1)
	case e.TooLarge:
		l.count.received.Add(1)
		l.cfg.TooLarge(e)
		l.count.tooLarge.Add(1)
	default:
		l.count.received.Add(1)
		if l.cfg.Append(e) > 0 {
			l.count.routed.Add(1)
		} else {
			l.count.unrouted.Add(1)
		}
	}
	l.cursor, l.mark = e.ID, e.mark
	l.index++
}

func (l *Log) missing(which right, err error) {
	l.report.missing(which, l.cfg.Server.userName(), err)
}

// probe connects anew from time to time and ends the generation when somebody
// else answers: after a soft fail-over the old primary keeps its connections.
func (l *Log) probe(ctx context.Context, primary identity, end context.CancelCauseFunc) {
	for sleep(ctx, jitter(l.cfg.ProbeEvery)) {
		var found identity
		cn := l.cfg.Server.newLinkFor(ctx, l.cfg.Key, func(ctx context.Context, c *goredis.Conn) (err error) {
			found, err = introduce(ctx, c, l.missing)
			return err
		})
		err := cn.pubsub.Ping(context.WithoutCancel(ctx))
		if err != nil {
			err = cn.why(err)
		}
		cn.close()
		switch {
		case ctx.Err() != nil:
		case found.differs(primary):
			end(faultMoved)
		case err != nil:
			l.report.probeFailed(l.cfg.Server.fault(err, false))
		default:
			l.report.probeSent()
		}
	}
}
