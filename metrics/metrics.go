package metrics

import (
	"regexp"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/histogram"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

// Sources provides the statistics. Its functions are called at each scrape, and must be safe for concurrent use. The
// metrics of a nil function are 0.
type Sources struct {
	Hub        func() hub.Stats
	Streams    func() sse.Stats
	Feeds      func() []redis.Stats     // one element per Redis
	Checks     func() auth.ForwardStats // calls of auth.Forward
	LogDropped func() uint64            // log lines that were dropped
	Online     func() (n int, ok bool)  // users who are online on any hub; nil or not ok: not known, and the metric is omitted
	Version    string                   // label of usercast_build_info
}

// NewRegistry returns a registry with a Collector, and with the metrics of the Go runtime and the process.
func NewRegistry(s Sources) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		NewCollector(s),
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(
			collectors.GoRuntimeMetricsRule{Matcher: garbageCollector},
		)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// garbageCollector selects go_cpu_classes_gc_total_cpu_seconds_total, which is not among the default metrics.
var garbageCollector = regexp.MustCompile(`^/cpu/classes/gc/total:cpu-seconds$`)

// A Collector is a prometheus.Collector over the statistics of a hub. It is safe for concurrent use.
type Collector struct{ sources Sources }

// NewCollector returns a Collector, which must be registered.
func NewCollector(s Sources) *Collector { return &Collector{s} }

// read returns the zero value if source is nil.
func read[T any](source func() T) (value T) {
	if source != nil {
		value = source()
	}
	return value
}

// online returns Sources.Online, or false if it is nil.
func (s Sources) online() (n int, ok bool) {
	if s.Online == nil {
		return 0, false
	}
	return s.Online()
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("usercast_"+name, help, labels, nil)
}

var (
	clients     = desc("clients", "Open streams.")
	users       = desc("users", "Users with an open stream.")
	groups      = desc("groups", "Groups of which a user with an open stream is a member.")
	online      = desc("online_users", "Users who are online on any hub, as of the newest count within about 5 s; only with --presence.")
	connects    = desc("connects_total", "Streams opened.")
	disconnects = desc("disconnects_total", "Streams ended, by reason.", "reason")
	rejects     = desc("rejects_total", "Stream requests rejected, by reason.", "reason")
	held        = desc("rejects_held", "Temporary rejections that are held open for one second.")

	received  = desc("messages_received_total", "Messages received from Redis.", "feed", "redis")
	routed    = desc("messages_routed_total", "Messages routed live to at least one stream.", "feed", "redis")
	unrouted  = desc("messages_unrouted_total", "Messages that were not routed live to any stream.", "feed", "redis")
	malformed = desc("messages_malformed_total", "Messages whose channel name does not contain a user or a group.", "feed", "redis")
	tooLarge  = desc("messages_too_large_total", "Messages over the payload limit, announced as gaps.", "feed", "redis")

	control          = desc("control_received_total", "Control commands received, including malformed ones.", "feed", "redis")
	controlMalformed = desc("control_malformed_total", "Control commands that are malformed or unknown.", "feed", "redis")

	enqueued      = desc("frames_enqueued_total", "Messages queued for streams or replayed to them, counted once per stream.")
	replayed      = desc("replayed_total", "Messages replayed to resumed streams; also counted in usercast_frames_enqueued_total.")
	queued        = desc("frames_queued", "Messages queued or being written, counted once per stream.")
	discarded     = desc("frames_discarded_total", "Messages still queued when their stream ended, by the reason why it ended.", "reason")
	deliveries    = desc("deliveries_total", "Messages written to the sockets of streams, counted once per stream.")
	deliveryBytes = desc("delivery_bytes_total", "Bytes of the messages written to sockets.")
	delivery      = desc("delivery_seconds", "Time from receiving a message from Redis to writing it to a socket.")
	gaps          = desc("gaps_total", "Gaps announced, counted once per stream, by reason.", "reason")

	resumes        = desc("resumes_total", "Streams opened with an id, by origin. this_hub: the user has had a stream on this hub within the history age (stream feed: has one now). other_hub: the user has not. unknown: the hub does not know the id.", "origin")
	historySeconds = desc("history_seconds", "How far back a replay reaches, for users with (here) and without (elsewhere) a stream on this hub.", "scope")
	historyEntries = desc("history_entries", "Messages and gaps kept for replay.")
	historyBytes   = desc("history_bytes", "Memory used by messages and gaps kept for replay, including overhead.")

	hubs       = desc("hubs", "Hubs whose marker was received within 30 s, including this one.")
	mismatches = desc("marker_mismatches_total", "Times that this hub missed messages that another hub received, although its connection to Redis stayed open.")

	connected  = desc("redis_connected", "Whether the Redis subscription is active (1) or not (0).", "feed", "redis")
	reconnects = desc("redis_reconnects_total", "Successful Redis subscriptions after the first one.", "feed", "redis")
	probe      = desc("redis_probe_seconds", "Round-trip time of a probe through Redis.")
	authTime   = desc("auth_seconds", "Duration of the authentication of a stream request.")
	authLimit  = desc("auth_concurrency", "Current maximum number of concurrent requests to the app with forward authentication.")
	authOpen   = desc("auth_in_flight", "Requests to the app with forward authentication that are in flight.")
	authQueue  = desc("auth_waiting", "Requests to the app with forward authentication that wait to be sent.")
	logDropped = desc("log_dropped_total", "Log lines that were dropped because standard error did not accept them in time.")
	buildInfo  = desc("build_info", "Always 1, with the versions of usercast and Go as labels.", "version", "goversion")
)

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	out := sink(ch)
	out.gauge(buildInfo, 1, c.sources.Version, runtime.Version())
	out.counter(logDropped, read(c.sources.LogDropped))
	checks := read(c.sources.Checks)
	out.gauge(authLimit, float64(checks.Concurrency))
	out.gauge(authOpen, float64(checks.InFlight))
	out.gauge(authQueue, float64(checks.Waiting))
	out.hub(read(c.sources.Hub))
	if n, ok := c.sources.online(); ok {
		out.gauge(online, float64(n))
	}
	out.streams(read(c.sources.Streams))
	feeds := read(c.sources.Feeds)
	var probes histogram.Snapshot
	for _, st := range feeds {
		out.feed(st)
		probes.Add(st.Probe)
	}
	out.histogram(probe, probes)
	out.gauge(hubs, float64(countHubs(feeds)))
	out.counter(mismatches, countMismatches(feeds))
}

type sink chan<- prometheus.Metric

func (s sink) hub(st hub.Stats) {
	s.gauge(clients, float64(st.Clients))
	s.gauge(users, float64(st.Users))
	s.gauge(groups, float64(st.Groups))
	s.counter(connects, st.Connects)
	for _, reason := range hub.Reasons() {
		s.counter(disconnects, st.Disconnects[reason], reason.String())
		s.counter(discarded, st.FramesDiscarded[reason], reason.String())
	}
	s.counter(enqueued, st.FramesEnqueued)
	s.counter(replayed, st.Replayed)
	for _, origin := range hub.Origins() {
		s.counter(resumes, st.Resumes[origin], origin.String())
	}
	s.gauge(historySeconds, st.HistoryHere.Seconds(), scopeHere)
	s.gauge(historySeconds, st.HistoryElsewhere.Seconds(), scopeElsewhere)
	s.gauge(historyEntries, float64(st.HistoryEntries))
	s.gauge(historyBytes, float64(st.HistoryBytes))
	s.gauge(queued, float64(st.FramesQueued))
	s.counter(deliveries, st.Deliveries)
	s.counter(deliveryBytes, st.DeliveryBytes)
	for _, gap := range hub.Gaps() {
		s.counter(gaps, st.Gaps[gap], gap.String())
	}
}

func (s sink) streams(st sse.Stats) {
	for reason, n := range st.Rejects {
		s.counter(rejects, n, reason)
	}
	s.gauge(held, float64(st.Held))
	s.histogram(delivery, st.Delivery)
	s.histogram(authTime, st.Auth)
}

func (s sink) feed(st redis.Stats) {
	labels := []string{st.Feed, st.Redis}
	s.counter(received, st.Received, labels...)
	s.counter(routed, st.Routed, labels...)
	s.counter(unrouted, st.Unrouted, labels...)
	s.counter(malformed, st.Malformed, labels...)
	s.counter(tooLarge, st.TooLarge, labels...)
	up := 0.0
	if st.Connected {
		up = 1
	}
	s.counter(control, st.ControlReceived, labels...)
	s.counter(controlMalformed, st.ControlMalformed, labels...)
	s.gauge(connected, up, labels...)
	s.counter(reconnects, st.Reconnects, labels...)
}

func (s sink) counter(d *prometheus.Desc, n uint64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) histogram(d *prometheus.Desc, h histogram.Snapshot) {
	s <- prometheus.MustNewConstHistogram(d, h.Count, h.SumSeconds, h.Cumulative)
}
