package redis

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// generation makes one connection and reads until something ends it. It returns
// how long it could read, and why it ended. A key that moves to another node of a cluster is
// followed within the generation.
func (l *Log) generation(ctx context.Context) (lived time.Duration, err error) {
	ctx, end := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end(nil)
	r := &logReader{Log: l}
	defer r.close()
	if err = r.connect(ctx, target{key: l.cfg.Key}); err == nil {
		l.servers.saw(r.conn.server, l.cfg.ProbeEvery)
		err = r.follow(ctx, r.begin)
	}
	if err == nil { // a reader that may not read has not subscribed
		err = r.follow(ctx, func() error { return r.next(time.Millisecond) })
	}
	if err == nil {
		l.cfg.Server.renew() // what was made before may lead elsewhere
		since := time.Now()
		l.count.connected.Store(true)
		l.report.subscribed(l.count.generation.Add(1), r.conn.server.role)
		wg.Go(func() { l.probe(ctx, &r.at, end) })
		for err == nil {
			err = r.follow(ctx, func() error { return r.next(r.cfg.Block) })
		}
		lived = time.Since(since)
	}
	l.count.connected.Store(false)
	l.cfg.Server.renew()
	if cause := context.Cause(ctx); cause != nil {
		err = cause // the socket was cut for it; err only tells of the cut
	}
	return lived, err
}

// logReader reads over one connection at a time.
type logReader struct {
	*Log
	conn    *logConn  // nil: not connected
	stateAt time.Time // when the state of an idle log was requested last
	at      atomic.Pointer[whereabouts]
}

// whereabouts is the server that a logReader is connected to, for probes. Immutable.
type whereabouts struct {
	identity
	asking bool // the node has the key, but its slot only later
}

func (r *logReader) connect(ctx context.Context, to target) error {
	conn, err := r.dialLog(ctx, to, r.cfg.Block+r.cfg.Server.answerTimeout)
	if err != nil {
		return err
	}
	r.close()
	r.conn = conn
	r.stateAt = time.Now() // begin requests it
	r.at.Store(&whereabouts{conn.server, conn.asking})
	return nil
}

func (r *logReader) close() {
	if r.conn != nil {
		r.conn.close()
	}
}

// maxRedirections is how many redirections are followed in a row: more are a fault of the cluster.
const maxRedirections = 5

// follow runs a step, and again at the node that has the key if the one that was asked has it no
// longer. A step that is sent on has changed nothing.
func (r *logReader) follow(ctx context.Context, step func() error) error {
	for n := 0; ; n++ {
		err := step()
		to, ok := r.cfg.Server.redirection(err, r.cfg.Key, r.conn.link.addr)
		if !ok || n == maxRedirections {
			return err
		}
		before := r.conn.server
		if err := r.connect(ctx, to); err != nil {
			return err
		}
		if to.asking && before.sameData(r.primary) {
			r.primary = r.conn.server // a slot that migrates takes its keys along as they are
		}
	}
}

// begin loads the window on the first connection, and looks on every later one
// whether the log still is what it was.
func (r *logReader) begin() (err error) {
	if !r.loaded {
		return r.load()
	}
	return r.look()
}

// next waits for entries, for block at most, and hands them over.
func (r *logReader) next(block time.Duration) error {
	if err := r.control(); err != nil {
		return err
	}
	p, err := r.conn.wait(r.cursor, block)
	if err != nil {
		return err
	}
	if len(p.entries) == 0 {
		return r.idle()
	}
	if err := r.check(p.entries); errors.Is(err, errReset) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range p.entries {
		r.take(e)
	}
	r.primary = r.conn.server
	r.cfg.Waiting()
	return nil
}

// take hands one entry over.
func (l *Log) take(e Entry) {
	switch {
	case e.order != "":
		l.obey(e)
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
	l.lengthKnown = false // others may have been deleted before they were read
	l.trail.add(e)
}

func (l *Log) missing(which right, err error) {
	l.report.missing(which, l.cfg.Server.userName(), err)
}
