package fleet

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"usercast/hub"
)

const (
	// visible is how long a hub belongs to the fleet after its newest marker.
	visible = 30 * time.Second
	// peerAge is how long the publisher of a marker is remembered.
	peerAge = 150 * time.Second
	// maxPeers limits the memory for forged markers.
	maxPeers = 1000

	// settleWithin is how long a hub waits for its own announcement to arrive. A hub that is not allowed to publish
	// would otherwise doubt all ids until its generation ends.
	settleWithin = 60 * time.Second
)

// Places is the part of a hub that a Member advances. *hub.PubSub implements it.
type Places interface {
	Begin()
	Mark(name hub.MarkerName)
	Miss(after hub.MarkerName)
	Settle()
	Doubt(after hub.MarkerName)
}

// A Config describes a Member. All fields are required.
type Config struct {
	Places        Places
	Name, Version string // of this hub, for people
	// Load returns the number of streams of this hub, and of users with one.
	Load func() (streams, users int)
}

// A Member is this hub among the hubs of one Redis. Begin, Subscribed, Count and Receive are called by the goroutine that
// reads Redis, in the order of what it receives. The other methods are safe for concurrent use. A time is the time
// since any fixed moment.
type Member struct {
	cfg  Config
	boot string // distinguishes processes, even if they have the same name

	mismatches atomic.Uint64

	// Owned by the goroutine that reads Redis.
	counted     Point  // messages since the generation began; without a name
	compareFrom uint64 // ordinal of the first point to compare
	announce    bool   // messages are missing, and the next marker announces it

	// Guarded by mu, which is held while Places is called.
	mu         sync.Mutex
	generation uint64
	from       string // of own markers
	runID      string
	patterns   []string
	subscribed bool
	points     points
	peers      map[string]*peer // by their boot
	own        time.Duration    // when the newest own marker was received; negative: none in this generation

	// The announcement that this hub has missed messages, until it has arrived. Guarded by mu.
	missed   hub.MarkerName // the point after which; zero: nothing to announce
	missedAt time.Duration
	missedIn hub.MarkerName // newest own marker that contains it; zero: none since messages were missed last
}

// A peer is another hub.
type peer struct {
	hub      Hub
	from     string        // with its generation
	newest   time.Duration // when its newest marker was received
	reported bool          // as different from this hub

	// The newest point that both know in this generation, as each of them has counted.
	known        bool
	theirs, ours Point
}

// NewMember returns a Member without a generation.
func NewMember(cfg Config) *Member {
	return &Member{cfg: cfg, boot: hub.NewMarkerName().String(), peers: map[string]*peer{}, own: -1}
}

// Begin begins a generation, when Redis has confirmed the patterns: every later message is counted. runID identifies
// the server process of this very connection, "" if it is unknown; patterns are sorted.
func (m *Member) Begin(runID string, patterns []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cfg.Places.Begin()
	if runID != m.runID && m.missed != (hub.MarkerName{}) {
		m.settle() // the other hubs do not know markers of that server either
	}
	m.generation++
	m.from = m.boot + "." + strconv.FormatUint(m.generation, 10)
	m.runID, m.patterns, m.subscribed = runID, slices.Clone(patterns), false
	m.counted, m.compareFrom, m.announce, m.own = Point{}, 0, false, -1
	m.points = newPoints()
	m.compareAfresh()
}

// Subscribed is called when Redis has confirmed the control channel: from now on, this hub receives every marker.
func (m *Member) Subscribed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subscribed = true
}

// Count counts a message that matched a pattern, whatever it contains. It does not allocate or lock.
func (m *Member) Count(channel, payload string) {
	m.counted.Count++
	m.counted.Sum += sum(channel, payload)
}

// A Report is what a marker has revealed.
type Report struct {
	Mismatch *Mismatch // not nil: this hub has missed messages. The caller publishes a marker immediately
	Differs  *Hub      // a hub with another version or other patterns; not nil once per hub
	Patterns []string  // of Differs
}

// A Mismatch says which messages a hub has missed.
type Mismatch struct {
	Other   string // name of the hub that has received them
	Missing uint64 // how many more it has received; 0: as many, but others
}

// Receive processes a marker that was received.
func (m *Member) Receive(mk Marker, now time.Duration) (report Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	boot, _, _ := strings.Cut(mk.From, ".")
	var p *peer // nil: this hub
	if boot != m.boot {
		if p = m.peer(boot, mk, now); p.differs(m.cfg.Version) && !p.reported {
			p.reported = true
			report.Differs, report.Patterns = new(p.hub), mk.Patterns
		}
	}
	if !m.counts(mk) || !m.points.add(Point{mk.Name, m.counted.Count, m.counted.Sum}, now) {
		return report
	}
	if p != nil && mk.Missed != (hub.MarkerName{}) {
		m.cfg.Places.Doubt(mk.Missed)
	}
	m.cfg.Places.Mark(mk.Name)
	if m.announce {
		m.announce, m.compareFrom = false, m.points.end()-1
		m.compareAfresh()
	}
	if m.missed != (hub.MarkerName{}) && (mk.Name == m.missedIn || now-m.missedAt > settleWithin) {
		m.settle()
	}
	if boot == m.boot {
		m.own = now
	}
	if p != nil {
		report.Mismatch = m.compare(p, mk.Points, now)
	}
	return report
}

// counts reports whether a marker counts here: it is from a subscription to the same server process with the same
// patterns, and in a version that this hub knows.
func (m *Member) counts(mk Marker) bool {
	return m.subscribed && mk.Name != (hub.MarkerName{}) && m.isSameServer(mk) && slices.Equal(mk.Patterns, m.patterns)
}

func (m *Member) isSameServer(mk Marker) bool { return mk.RunID == m.runID && m.runID != "" }

// peer returns the publisher of a marker. If there are too many, it is not remembered: its markers are compared, each by
// itself, and it is not reported.
func (m *Member) peer(boot string, mk Marker, now time.Duration) *peer {
	p := m.peers[boot]
	if p == nil {
		for boot, p := range m.peers {
			if now-p.newest > peerAge {
				delete(m.peers, boot)
			}
		}
		if p = new(peer); len(m.peers) < maxPeers {
			m.peers[boot] = p
		} else {
			p.reported = true
		}
	}
	if p.from != mk.From {
		p.from, p.known = mk.From, false
	}
	p.hub, p.newest = mk.Hub, now
	if mk.Name != (hub.MarkerName{}) {
		p.hub.OtherServer, p.hub.OtherPatterns = !m.isSameServer(mk), !slices.Equal(mk.Patterns, m.patterns)
	}
	return p
}

// differs reports whether p runs another version or has other patterns. Markers without a name or version are not from a
// hub that an operator could find.
func (p *peer) differs(version string) bool {
	return p.hub.Name != "" && p.hub.Version != "" && (p.hub.Version != version || p.hub.OtherPatterns)
}

// compareAfresh forgets the points that were compared: what lies before is announced, or is another generation.
func (m *Member) compareAfresh() {
	for _, p := range m.peers {
		p.known = false
	}
}

// compare compares what p and this hub have counted between the points of a marker. If this hub has missed messages, the
// rest of the list does not matter: the gap is announced at the next marker, and covers everything up to there.
func (m *Member) compare(p *peer, list []Point, now time.Duration) *Mismatch {
	for _, theirs := range list {
		ours, ordinal, ok := m.points.get(theirs.Name)
		if !ok || ordinal < m.compareFrom {
			continue
		}
		if p.known && theirs.Count >= p.theirs.Count { // otherwise it is an older point, which was compared before
			they, we := theirs.Count-p.theirs.Count, ours.Count-p.ours.Count
			if they > we || they == we && theirs.Sum-p.theirs.Sum != ours.Sum-p.ours.Sum {
				m.miss(p.ours.Name, now)
				return &Mismatch{Other: p.hub.Name, Missing: they - we}
			}
		}
		p.known, p.theirs, p.ours = true, theirs, ours
	}
	return nil
}

// miss records that this hub has missed messages after a point.
func (m *Member) miss(after hub.MarkerName, now time.Duration) {
	m.mismatches.Add(1)
	m.announce = true
	if m.missed == (hub.MarkerName{}) { // otherwise the earlier point stands for both
		m.missed = after
	}
	m.missedAt, m.missedIn = now, hub.MarkerName{}
	m.cfg.Places.Miss(after)
}

// settle ends the announcement of messages that this hub has missed.
func (m *Member) settle() {
	m.missed, m.missedIn = hub.MarkerName{}, hub.MarkerName{}
	m.cfg.Places.Settle()
}

// Write returns a marker to publish, with a new name. The caller makes one attempt: if it may have failed, it calls
// Write again, because a name that Redis delivers twice would stand for two places. ok is false while markers of this
// hub would not count: before Subscribed, or without a run id.
func (m *Member) Write(now time.Duration) (mk Marker, ok bool) {
	streams, users := m.cfg.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.subscribed || m.runID == "" {
		return Marker{}, false
	}
	mk = Marker{
		Name: hub.NewMarkerName(), RunID: m.runID, Patterns: m.patterns, From: m.from,
		Hub:    Hub{Name: m.cfg.Name, Version: m.cfg.Version, Streams: streams, Users: users},
		Points: m.points.list(now), Missed: m.missed,
	}
	if mk.Missed != (hub.MarkerName{}) {
		m.missedIn = mk.Name
	}
	return mk, true
}

// Marked reports which markers were received and counted in this generation: own ones, any.
func (m *Member) Marked() (own, any bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.own >= 0, m.points.end() > 0
}

// Mismatches returns how often this hub has missed messages that another one has received.
func (m *Member) Mismatches() uint64 { return m.mismatches.Load() }

// Hubs returns this hub, and those whose newest marker is at most 30 s old, sorted by name.
func (m *Member) Hubs(now time.Duration) []Hub {
	streams, users := m.cfg.Load()
	self := Hub{Name: m.cfg.Name, Version: m.cfg.Version, Streams: streams, Users: users, Self: true, Age: -1}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.own >= 0 {
		self.Age = max(0, now-m.own) // it may be newer than now
	}
	type named struct {
		boot string
		hub  Hub
	}
	all := []named{{m.boot, self}}
	for boot, p := range m.peers {
		if age := now - p.newest; age <= visible {
			h := p.hub
			h.Age = max(0, age)
			all = append(all, named{boot, h})
		}
	}
	slices.SortFunc(all, func(a, b named) int {
		return cmp.Or(cmp.Compare(a.hub.Name, b.hub.Name), cmp.Compare(a.boot, b.boot))
	})
	hubs := make([]Hub, len(all))
	for i := range all {
		hubs[i] = all[i].hub
	}
	return hubs
}
