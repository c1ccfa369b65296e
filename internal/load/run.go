package load

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"sync/atomic"
	"time"
)

// A run is one Run.
type run struct {
	cfg     *Config
	tally   *tally
	report  *Report
	streams []stream
	now     atomic.Value // the Progress with which a phase began

	// Owned by Run.
	readers    readers
	tlsReaders readers // the epoll reader reads sockets, which TLS does not allow
	conns      []*http2Conn
	sender     *sender
	base       Samples // before the first stream; nil: could not be read
	unread     bool    // it was said that the hub's figures cannot be read
}

// Run does what cfg says and reports. It returns an error only when nothing could
// be measured. When ctx ends it stops early, and reports all the same.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	publisher, err := cfg.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer publisher.Close()
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	r := &run{
		cfg:     &cfg,
		tally:   newTally(hex.EncodeToString(id[:]), cfg.Users, cfg.Broadcast),
		streams: make([]stream, cfg.Streams),
		report: &Report{
			Streams: cfg.Streams, Users: cfg.Users, HTTP2: cfg.HTTP2, Broadcast: cfg.Broadcast, SizeBytes: cfg.Size,
			Faults: []string{}, Notes: []string{}, Loops: []*Loop{},
		},
	}
	for _, t := range cfg.Targets {
		r.report.URLs = append(r.report.URLs, t.String())
	}
	for i := range r.streams {
		r.streams[i] = stream{tally: r.tally, user: i % cfg.Users}
	}
	if cfg.portable {
		r.readers = newConnReaders(r.tally)
	} else if r.readers, err = newReader(r.tally); err != nil {
		return nil, err
	}
	r.tlsReaders = newConnReaders(r.tally)
	defer func() {
		r.readers.close()
		r.tlsReaders.close()
		for _, c := range r.conns {
			c.close()
		}
	}()
	r.sender = newSender(r, publisher)
	defer r.sender.close()

	stopTelling := r.tell()
	r.measure(ctx)
	stopTelling()
	r.check()
	r.report.Interrupted = ctx.Err() != nil
	r.faults()
	return r.report, nil
}

// measure is the phases in turn, as far as they make sense.
func (r *run) measure(ctx context.Context) {
	r.base = r.sample()
	r.connecting(ctx)
	usable := func() bool { return ctx.Err() == nil && r.tally.open.Load() > 0 && r.sender.err() == nil }
	if r.cfg.Idle > 0 && usable() {
		r.idle(ctx)
	}
	if r.cfg.Rate > 0 && usable() {
		r.loop(ctx, &Loop{Kind: "open", Rate: r.cfg.Rate})
	}
	if r.cfg.Outstanding > 0 && usable() {
		r.loop(ctx, &Loop{Kind: "closed", Outstanding: r.cfg.Outstanding})
	}
}

func (r *run) connecting(ctx context.Context) {
	m := r.mark()
	m.hub = r.base
	r.phase("connect", int64(r.cfg.Streams))
	r.connect(ctx)
	seconds := time.Since(m.at).Seconds()
	c := &Connect{Seconds: seconds, Cost: r.since(m)}
	t := r.tally
	t.mu.Lock()
	c.Opened, c.Failed, c.FailedBy, c.example = t.opened, t.unopened, maps.Clone(t.unopenedBy), t.example
	c.FirstBytes = newLatency(t.opening)
	t.mu.Unlock()
	c.Untried = int64(r.cfg.Streams) - c.Opened - c.Failed
	c.PerSecond = float64(c.Opened) / seconds
	if c.Cost.Hub != nil {
		c.HubPerOne = per(c.Cost.Hub.CPU*1e6, c.Opened)
	}
	r.report.Connect = c
}

// settle is how long a hub may take to give back the garbage of a wave of new
// streams; its idle memory is measured after that.
const settle = 2500 * time.Millisecond

func (r *run) idle(ctx context.Context) {
	r.phase("idle", (settle + r.cfg.Idle).Milliseconds())
	if !sleep(ctx, settle) {
		return
	}
	m, before := r.mark(), r.pings()
	sleep(ctx, r.cfg.Idle)
	p := &Idle{Seconds: time.Since(m.at).Seconds(), Pings: r.pings() - before}
	p.Cost = r.since(m)
	if hub, streams := p.Cost.Hub, r.tally.open.Load(); hub != nil && r.base != nil {
		p.HubKiB = per((float64(hub.RSSAfter)-r.base["process_resident_memory_bytes"])/1024, streams)
		p.HubHeapKiB = per(float64(hub.HeapAfter-r.base.heap())/1024, streams)
		p.HubPerPing = per(hub.CPU*1e6, p.Pings)
	}
	r.report.Idle = p
}

// pings is how many all streams have heard so far.
func (r *run) pings() int64 {
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	return r.tally.pings
}
