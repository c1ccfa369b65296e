package load

// A Report is what a run found. Its JSON is a part of the contract of usercast bench:
// units stand in the names. What could not be measured is null.
type Report struct {
	URLs        []string `json:"urls"`
	Streams     int      `json:"streams"` // asked for
	Users       int      `json:"users"`
	HTTP2       bool     `json:"http2"`
	Broadcast   bool     `json:"broadcast"`
	SizeBytes   int      `json:"payload_bytes"`
	Interrupted bool     `json:"interrupted"`
	// Faults are plain sentences, and why the exit status is 1; none: a good run.
	Faults []string `json:"faults"`
	// Notes are worth knowing and no fault.
	Notes []string `json:"notes"`

	Connect *Connect `json:"connect"`
	Idle    *Idle    `json:"idle,omitempty"`
	Loops   []*Loop  `json:"loops"`
	Checks  Checks   `json:"checks"`
}

// Connect is the phase in which streams are opened.
type Connect struct {
	Seconds   float64          `json:"seconds"`
	Opened    int64            `json:"opened"`
	Failed    int64            `json:"failed"`
	FailedBy  map[string]int64 `json:"failed_by"`
	Untried   int64            `json:"untried"` // given up, or interrupted
	PerSecond float64          `json:"streams_per_s"`
	// FirstBytes is from the dial to the head of the answer.
	FirstBytes Latency  `json:"first_bytes"`
	Cost       Cost     `json:"cost"`
	HubPerOne  *float64 `json:"hub_cpu_us_per_connect"`
	example    string
}

// Idle is the phase in which nothing is published.
type Idle struct {
	Seconds float64 `json:"seconds"`
	Pings   int64   `json:"pings"` // that streams have heard
	Cost    Cost    `json:"cost"`
	// What the hub has grown by since before the first stream, over the streams.
	HubKiB     *float64 `json:"hub_rss_kib_per_stream"`
	HubHeapKiB *float64 `json:"hub_heap_and_stack_kib_per_stream"`
	HubPerPing *float64 `json:"hub_cpu_us_per_ping"`
}

// Loop is a phase in which messages are published.
type Loop struct {
	Kind        string  `json:"kind"`                     // open or closed
	Rate        float64 `json:"rate_per_s,omitempty"`     // of the open loop
	Outstanding int     `json:"outstanding,omitempty"`    // of the closed one
	Seconds     float64 `json:"seconds"`                  // to the last delivery
	Sending     float64 `json:"publish_seconds"`          // to the last message
	Messages    int64   `json:"messages"`                 // published
	Unconfirmed int64   `json:"messages_unconfirmed"`     // of these, without Redis' answer
	Unheard     int64   `json:"messages_heard_by_nobody"` // no hub had subscribed
	Expected    int64   `json:"deliveries_expected"`      // messages times open streams
	Delivered   int64   `json:"deliveries"`
	PerSecond   float64 `json:"deliveries_per_s"`
	Pings       int64   `json:"pings"` // that streams have heard meanwhile
	// LagMax is how late the publisher was at worst: latency that is not the hub's.
	LagMax float64 `json:"publisher_lag_max_ms"`
	// Latency is from when a message was due (open loop) or written (closed).
	Latency Latency `json:"latency"`
	// LastStream is the same until the last of a message's streams has it; with more
	// than one stream a message.
	LastStream *Latency `json:"last_stream_latency,omitempty"`
	Cost       Cost     `json:"cost"`
	HubPer1M   *float64 `json:"hub_cpu_s_per_1m_deliveries"`
	ClientPer1 *float64 `json:"client_cpu_us_per_delivery"`
}

// Latency is a distribution in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean_ms"`
	P50   float64 `json:"p50_ms"`
	P90   float64 `json:"p90_ms"`
	P99   float64 `json:"p99_ms"`
	P999  float64 `json:"p99_9_ms"`
	Max   float64 `json:"max_ms"`
}

// Cost is what a phase cost hub and client.
type Cost struct {
	ClientCPU float64 `json:"client_cpu_s"`
	Reads     int64   `json:"client_reads"`
	Bytes     int64   `json:"client_read_bytes"`
	Hub       *Hub    `json:"hub"` // null: its metrics could not be read
}

// Hub is what a hub's metrics say of a phase.
type Hub struct {
	CPU        float64 `json:"cpu_s"`
	CPUGC      float64 `json:"cpu_gc_s"` // of it the garbage collector's, up to its last cycle; 0 without Go
	RSSBefore  int64   `json:"rss_before_bytes"`
	RSSAfter   int64   `json:"rss_after_bytes"`
	HeapBefore int64   `json:"heap_and_stack_before_bytes"`
	HeapAfter  int64   `json:"heap_and_stack_after_bytes"`
	// Counters are the usercast_ metrics that have changed, and by how much.
	Counters map[string]float64 `json:"counters"`
}

// Checks are over the whole run.
type Checks struct {
	Lost          int64            `json:"lost"` // and no gap announced it
	LostAnnounced int64            `json:"lost_announced"`
	Doubled       int64            `json:"doubled"`
	Misordered    int64            `json:"misordered"` // after a later one
	WrongUser     int64            `json:"wrong_user"`
	Foreign       int64            `json:"foreign"` // messages of somebody else's
	Gaps          map[string]int64 `json:"gaps"`    // announced, by reason, once a stream
	Ended         map[string]int64 `json:"ended"`   // streams that ended before the run, by how
	EndedMissing  int64            `json:"missing_on_ended_streams"`
}
