package redis

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"usercast/hub"
	"usercast/transport/redis/internal/topology"
)

// position is how far a StreamFeed has read. It is kept across connections.
type position struct {
	began     time.Time // when Run was called
	startMs   uint64    // began by the clock of Redis, in ms; see startedAt
	firstLoad hub.ID    // the newest id when the window was loaded

	loaded      bool
	cursor      hub.ID // the newest entry that was read
	fingerprint uint64 // of that entry; 0: not known
	index       uint64 // number of entries ever added up to the cursor; see check

	primary topology.Identity // of the server that had the entry at the cursor
	length  uint64            // entries in the stream, all of them up to the cursor; valid if lengthKnown
	trail   trail             // entries up to the cursor
	skipped idRange           // skipped entries whose control commands have not been handled yet

	lengthKnown bool
}

// A reader is one generation of a StreamFeed. It reads over one connection at a time. If the key moves
// to another node of a cluster, the reader follows it within the generation.
type reader struct {
	*StreamFeed
	conn    *streamConn // nil: not connected
	stateAt time.Time   // when the state of an idle stream was last requested
	at      atomic.Pointer[location]

	oneOfSeveral bool // the address leads to other servers as well; owned by the prober
}

// location is the server that a reader is connected to, for probes. Immutable.
type location struct {
	topology.Identity
	address string
	asking  bool // the node has the key, but not yet its slot
}

// open connects, compares the Redis stream with what was read, and reads once, so that a missing
// permission to read is an error of open.
func (r *reader) open(ctx context.Context) error {
	if err := r.connect(ctx, topology.Target{Key: r.cfg.Key}); err != nil {
		return err
	}
	r.servers.Saw(r.conn.server, r.probeEvery)
	if err := r.follow(ctx, r.begin); err != nil {
		return err
	}
	return r.follow(ctx, func() error { return r.next(time.Millisecond) })
}

// receive is the path of an entry: it waits for entries, passes all that have arrived to the hub, and
// lets the streams write before it waits again.
func (r *reader) receive(ctx context.Context) (err error) {
	for err == nil {
		err = r.follow(ctx, func() error { return r.next(r.cfg.Block) })
	}
	return err
}

func (r *reader) describe() (role string, attrs []any) { return r.conn.server.Role, nil }

func (r *reader) urgent() bool { return false }

func (r *reader) addr() string { return r.at.Load().address }

func (r *reader) connect(ctx context.Context, to topology.Target) error {
	conn, err := r.dial(ctx, to, r.cfg.Block+r.server.AnswerTimeout())
	if err != nil {
		return err
	}
	r.close()
	r.conn = conn
	r.stateAt = time.Now() // begin requests it
	r.at.Store(&location{conn.server, conn.link.Addr, conn.asking})
	return nil
}

func (r *reader) close() {
	if r.conn != nil {
		r.conn.close()
	}
}

// maxRedirections is how many redirections are followed in a row. More mean a broken cluster.
const maxRedirections = 5

// follow runs a step. If the node redirects it because the key has moved, follow connects to the other
// node and runs the step again. A step that is redirected has not changed anything.
func (r *reader) follow(ctx context.Context, step func() error) error {
	for n := 0; ; n++ {
		err := step()
		to, ok := r.server.Redirection(err, r.cfg.Key, r.conn.link.Addr)
		if !ok || n == maxRedirections {
			return err
		}
		before := r.conn.server
		if err := r.connect(ctx, to); err != nil {
			return err
		}
		if to.Asking && before.SameData(r.primary) {
			r.primary = r.conn.server // a slot that migrates keeps its keys unchanged
		}
	}
}

// begin loads the window on the first connection. On every later one, it checks whether the stream
// was replaced or trimmed.
func (r *reader) begin() (err error) {
	if !r.loaded {
		return r.load()
	}
	return r.compare()
}

// next waits for entries for up to block, and delivers them.
func (r *reader) next(block time.Duration) error {
	if err := r.handleSkippedControl(); err != nil {
		return err
	}
	p, err := r.conn.wait(r.cursor, block)
	if err != nil {
		return err
	}
	if len(p.entries) == 0 {
		return r.checkIdle()
	}
	if err := r.check(p.entries); errors.Is(err, errReset) {
		return nil
	} else if err != nil {
		return err
	}
	r.cfg.Streams.Cork()
	for _, e := range p.entries {
		r.deliver(e)
	}
	r.cfg.Streams.Uncork()
	r.primary = r.conn.server
	return nil
}

// deliver passes one entry to the hub.
func (f *StreamFeed) deliver(e entry) {
	switch {
	case e.command != "":
		command, err := ParseControl(e.command)
		f.handleControl(command, err, f.cfg.Control)
		f.cfg.Hub.Append(hub.Recipient{}, hub.Entry{ID: e.ID})
	case e.to == hub.Recipient{}:
		f.count.received.Add(1)
		f.cfg.Hub.Append(hub.Recipient{}, e.Entry)
		f.count.malformed.Add(1)
	case e.Gap != 0:
		f.count.received.Add(1)
		f.cfg.Hub.Append(e.to, e.Entry)
		f.count.tooLarge.Add(1)
	default:
		f.count.received.Add(1)
		if f.cfg.Hub.Append(e.to, e.Entry) > 0 {
			f.count.routed.Add(1)
		} else {
			f.count.unrouted.Add(1)
		}
	}
	f.cursor, f.fingerprint = e.ID, e.fingerprint
	f.index++
	f.lengthKnown = false // other entries may have been deleted before they were read
	f.trail.add(e)
}
