package load

// A Report is the result of a run. Its JSON is part of the contract of usercast bench: the names of the fields contain
// their units. Values that could not be measured are null.
type Report struct {
	URLs        []string `json:"urls"`
	Streams     int      `json:"streams"` // as configured
	Users       int      `json:"users"`
	HTTP2       bool     `json:"http2"`
	Broadcast   bool     `json:"broadcast"`
	SizeBytes   int      `json:"payload_bytes"`
	Interrupted bool     `json:"interrupted"`
	// Faults are the failures of the run, as sentences. Without faults, the exit status is 0.
	Faults []string `json:"faults"`
	// Notes are information that is not a failure.
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
	FailedBy  map[Reason]int64 `json:"failed_by"`
	Untried   int64            `json:"untried"` // not tried after too many failures, or because the run was interrupted
	PerSecond float64          `json:"streams_per_s"`
	// FirstBytes is the time from the dial to the response headers.
	FirstBytes Latency  `json:"first_bytes"`
	Cost       Cost     `json:"cost"`
	HubPerOne  *float64 `json:"hub_cpu_us_per_connect"`
	example    string
}

// Idle is the phase in which nothing is published.
type Idle struct {
	Seconds float64 `json:"seconds"`
	Pings   int64   `json:"pings"` // received by streams
	Cost    Cost    `json:"cost"`
	// Growth of the hub since before the first stream, divided by the number of streams.
	HubKiB     *float64 `json:"hub_rss_kib_per_stream"`
	HubHeapKiB *float64 `json:"hub_heap_and_stack_kib_per_stream"`
	HubPerPing *float64 `json:"hub_cpu_us_per_ping"`
}

// Loop is a phase in which messages are published.
type Loop struct {
	Kind         string  `json:"kind"`                     // open or closed
	Rate         float64 `json:"rate_per_s,omitempty"`     // of the open loop
	Outstanding  int     `json:"outstanding,omitempty"`    // of the closed one
	Seconds      float64 `json:"seconds"`                  // to the last delivery
	Sending      float64 `json:"publish_seconds"`          // to the last message
	Messages     int64   `json:"messages"`                 // published
	Unconfirmed  int64   `json:"messages_unconfirmed"`     // of these, without a response from Redis
	NoSubscriber int64   `json:"messages_heard_by_nobody"` // published while no hub was subscribed
	Expected     int64   `json:"deliveries_expected"`      // messages times open streams
	Delivered    int64   `json:"deliveries"`
	PerSecond    float64 `json:"deliveries_per_s"`
	Pings        int64   `json:"pings"` // received by streams during the loop
	// LagMax is the largest delay of the publisher, which adds to the latency.
	LagMax float64 `json:"publisher_lag_max_ms"`
	// Latency is the time from when a message was due (open loop) or written (closed loop).
	Latency Latency `json:"latency"`
	// LastStream is the latency until the last stream of a message has received it. It is absent if each message goes to
	// one stream.
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

// Cost is the resource usage of the hub and of bench in a phase.
type Cost struct {
	ClientCPU float64 `json:"client_cpu_s"`
	Reads     int64   `json:"client_reads"`
	Bytes     int64   `json:"client_read_bytes"`
	Hub       *Hub    `json:"hub"` // null if its metrics could not be read
}

// Hub is the resource usage of the hub in a phase, according to its metrics.
type Hub struct {
	CPU        float64 `json:"cpu_s"`
	CPUGC      float64 `json:"cpu_gc_s"` // part of CPU used by the garbage collector, up to its last cycle; 0 if the hub is not a Go program
	RSSBefore  int64   `json:"rss_before_bytes"`
	RSSAfter   int64   `json:"rss_after_bytes"`
	HeapBefore int64   `json:"heap_and_stack_before_bytes"`
	HeapAfter  int64   `json:"heap_and_stack_after_bytes"`
	// Counters are the changes of the usercast_ metrics that have changed.
	Counters map[string]float64 `json:"counters"`
}

// Checks are the results for the whole run.
type Checks struct {
	Lost           int64            `json:"lost"` // without a gap
	LostAnnounced  int64            `json:"lost_announced"`
	Duplicated     int64            `json:"doubled"`
	Misordered     int64            `json:"misordered"` // received after a later message
	WrongUser      int64            `json:"wrong_user"`
	Foreign        int64            `json:"foreign"` // messages from other publishers
	Gaps           map[string]int64 `json:"gaps"`    // announced gaps by reason, once per stream
	Ended          map[Reason]int64 `json:"ended"`   // streams that ended before the end of the run, by reason
	MissingOnEnded int64            `json:"missing_on_ended_streams"`
}
