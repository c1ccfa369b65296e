package load

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"sync/atomic"
	"time"
)

// A run is the state of one call of Run.
type run struct {
	cfg     *Config
	tally   *tally
	report  *Report
	streams []stream
	now     atomic.Value // the Progress at the start of the current phase

	// Owned by Run.
	readers    readers
	tlsReaders readers // the epoll reader reads sockets, which is not possible with TLS
	conns      []*http2Conn
	sender     *sender
	base       Samples // metrics before the first stream; nil if they could not be read
	unread     bool    // the metrics of the hub could not be read, and the report has a note
}

// Run performs a run and returns its report. It returns an error only if nothing could be measured. If ctx is canceled, it
// stops early and returns a report nevertheless.
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

	stopProgress := r.reportProgress()
	r.measure(ctx)
	stopProgress()
	r.check()
	r.report.Interrupted = ctx.Err() != nil
	r.faults()
	return r.report, nil
}

// measure runs the phases one after the other, as long as streams are open and Redis works.
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

// settle is the time in which a hub releases the garbage of many new streams. Idle memory is measured after it.
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

// pings returns how many pings all streams have received so far.
func (r *run) pings() int64 {
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	return r.tally.pings
}
