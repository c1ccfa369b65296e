package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// LogConfig is what a Log needs. The funcs are called from one goroutine, the one
// that reads.
type LogConfig struct {
	Server        *Server
	Key           string // of the Redis stream, e.g. "usercast:log"
	ChannelPrefix string // as ValidatePrefix allows
	BroadcastUser string // whose entries answer every Query; "": nobody's
	MaxPayload    int    // bytes; default 1 MiB
	WindowBytes   int64  // most that Load gets: names, payload and 192 bytes an entry

	// Load gets the newest entries once, oldest first, before anything else: all
	// that are later than floor and up to newest.
	Load func(window []Entry, floor, newest EntryID)
	// Append gets each later message, in order, and says how many streams took it.
	Append func(Entry) int
	// TooLarge gets each later entry over MaxPayload.
	TooLarge func(Entry)
	// Skip gets the id of each later entry that is no message.
	Skip func(EntryID)
	// Lost hears that entries up to this id were trimmed before they were read.
	Lost func(upTo EntryID)
	// Reset hears that the log went backwards: its key was replaced, or a primary
	// without its newest entries was promoted. It goes on behind newest.
	Reset func(newest EntryID)
	// Control gets each order among the later entries.
	Control func(Control)
	// Waiting is as in Config.
	Waiting func()

	Log *slog.Logger // nil: none

	Block                  time.Duration // how long one XREAD waits; default 2 s
	ProbeEvery             time.Duration // as Config.ProbeEvery
	BackoffMin, BackoffMax time.Duration // as in Config
}

// Log is the stream feed: it follows one Redis stream, entry after entry, over one
// connection. A connection that ends loses nothing that the primary still has.
// Run it once; Ask and Stats may be called at any time.
type Log struct {
	cfg    LogConfig // immutable after NewLog
	report *reporter

	// Owned by Run.
	loaded bool
	cursor EntryID // the newest entry that was read
	mark   uint64  // of that entry; 0: not known
	index  uint64  // how many entries were ever added up to the cursor; see check

	primary identity // of the server that had the entry at the cursor
	length  uint64   // entries in the stream, all up to the cursor, if lengthKnown
	trail   trail    // entries up to the cursor
	passed  idRange  // entries that were passed over; commands among them are yet to be acted on

	lengthKnown bool

	began     time.Time // when Run was called
	startMs   uint64    // the same by the clock of Redis, in ms; see startedAt
	firstLoad EntryID   // the newest id when the log was loaded

	// Owned by Run, and by the prober while there is one.
	servers servers

	started atomic.Bool
	count   counters

	mu      sync.Mutex
	waiting []Query       // guarded by mu
	asked   chan struct{} // one slot: waiting is not empty
}

// NewLog checks cfg. It does not connect: Run does.
func NewLog(cfg LogConfig) (*Log, error) {
	cfg.MaxPayload = cmp.Or(cfg.MaxPayload, 1<<20)
	cfg.Block = cmp.Or(cfg.Block, 2*time.Second)
	cfg.ProbeEvery = cmp.Or(cfg.ProbeEvery, 30*time.Second)
	cfg.BackoffMin = cmp.Or(cfg.BackoffMin, 100*time.Millisecond)
	cfg.BackoffMax = cmp.Or(cfg.BackoffMax, time.Second)
	if cfg.Waiting == nil {
		cfg.Waiting = func() {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Server == nil:
		return nil, errors.New("no server to read from")
	case cfg.Load == nil, cfg.Append == nil, cfg.TooLarge == nil, cfg.Skip == nil, cfg.Lost == nil, cfg.Reset == nil, cfg.Control == nil:
		return nil, errors.New("a func of the log's is missing")
	}
	if err := errors.Join(ValidatePrefix(cfg.ChannelPrefix), ValidateKey(cfg.Key)); err != nil {
		return nil, err
	}
	return &Log{cfg: cfg, report: newReporter(cfg.Log, cfg.Server), asked: make(chan struct{}, 1)}, nil
}

// ValidateKey says why a stream's key cannot be used, or nil.
func ValidateKey(key string) error {
	if key == "" {
		return errors.New("the stream's key is empty")
	}
	return nil
}

// Run follows the log until ctx ends, and then returns nil. Redis being away is not
// an error; calling Run a second time is.
func (l *Log) Run(ctx context.Context) error {
	if l.started.Swap(true) {
		return errors.New("a Log runs only once")
	}
	l.began = time.Now()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.scan(ctx) })
	pauses := backoff{min: l.cfg.BackoffMin, max: l.cfg.BackoffMax}
	for {
		lived, err := l.generation(ctx)
		if ctx.Err() != nil {
			return nil
		}
		l.report.down(l.fault(err, lived > 0), lived > 0)
		if lived > 5*l.cfg.BackoffMax {
			pauses.reset()
		}
		if !sleep(ctx, pauses.pause()) {
			return nil
		}
	}
}

func (l *Log) fault(err error, live bool) *fault {
	switch {
	case errors.Is(err, errEntryID):
		return &fault{reason: "entry", problem: "redis names an entry in a way that cannot be read", advice: "is it Redis that answers, and " + l.cfg.Key + " a stream of its own?", err: err}
	case goredis.HasErrorPrefix(err, "WRONGTYPE"):
		return &fault{reason: "type", problem: l.cfg.Key + " is no stream", advice: "rename that key, or follow another", err: err}
	case isReply(err):
		return l.cfg.Server.denied(err, "read "+l.cfg.Key, fmt.Sprintf("+xread +xrange +xrevrange +xinfo|stream +xlen ~%s", globEscaper.Replace(l.cfg.Key)))
	}
	return l.cfg.Server.fault(err, live)
}

// Stats takes a snapshot. What Load and queries get is not counted in it.
func (l *Log) Stats() Stats {
	s := l.count.stats()
	s.Feed, s.Redis = "stream", l.cfg.Server.Name()
	return s
}
