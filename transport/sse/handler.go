package sse

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/histogram"
)

// Config configures a Handler.
type Config struct {
	Hub            *hub.Hub           // required; its Encode is normally EncodeEntry
	Authenticate   auth.Authenticator // required
	TopicSeparator byte               // character that a user id and the name of a group must not contain; default ':'
	MaxGroups      int                // maximum number of groups of a user; default 64; negative means no limit
	Origins        Origins            // AllowOrigins replaces its list
	PingInterval   time.Duration      // maximum time without a write; default 15 s
	WriteTimeout   time.Duration      // a write that waits longer ends its stream; default 10 s
	Retry          time.Duration      // time after which browsers reconnect, ±50 % per client; default 3 s
	MaxAge         time.Duration      // maximum age of a stream, ±20 %; 0 means no limit
	Portable       bool               // use hijackedConn and a goroutine per stream on Linux, too
	MaxHeld        int                // maximum number of temporary rejections that are held open; default and maximum 1,000; negative disables it
	Logger         *slog.Logger       // default: no logging
}

// A Handler answers GET requests with a stream of the events of the request's user. It is safe
// for concurrent use.
type Handler struct {
	cfg   Config
	log   *slog.Logger
	began time.Time

	origins atomic.Pointer[Origins] // current

	ends    endLogger
	writers writers
	wheel   *wheel
	poller  *poller

	settings connSettings // of connections that do not come from a Server

	mu   sync.Mutex
	live int        // guarded by mu: streams, and goroutines that serve them
	none *sync.Cond // signaled when live becomes 0

	rejects  map[string]*atomic.Uint64
	rejected *rejectLog
	held     *heldRejects
	rechecks rechecks
	delivery histogram.Histogram
	auth     histogram.Histogram
}

// longest is the maximum of all configured durations: 18 years. Sums and products of them then
// stay below 292 years, the maximum of a Duration: a stream lives for up to 1.2 times its maximum
// age, and a rejected client waits for up to 7.5 times Retry.
const longest = 1 << 59

// New returns a handler. A duration that is not positive is replaced by its default, and one
// above 18 years by 18 years. New panics if Hub or Authenticate is missing.
func New(cfg Config) *Handler {
	if cfg.Hub == nil || cfg.Authenticate == nil {
		panic("sse: Config.Hub and Config.Authenticate are required")
	}
	fill := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
		*d = min(*d, longest)
	}
	fill(&cfg.PingInterval, 15*time.Second)
	fill(&cfg.WriteTimeout, 10*time.Second)
	fill(&cfg.Retry, 3*time.Second)
	fill(&cfg.MaxAge, 0)
	cfg.TopicSeparator = cmp.Or(cfg.TopicSeparator, ':')
	cfg.MaxGroups = cmp.Or(cfg.MaxGroups, 64)
	h := &Handler{cfg: cfg, log: cfg.Logger, began: time.Now(), rejects: make(map[string]*atomic.Uint64), rejected: newRejectLog(), held: newHeldRejects(cfg.MaxHeld)}
	h.origins.Store(&cfg.Origins)
	h.none = sync.NewCond(&h.mu)
	h.writers.count = h.count
	period := min(cfg.PingInterval, time.Minute) // bounds the delay with which streams end at the expiry of a login
	if cfg.MaxAge > 0 {
		period = min(period, cfg.MaxAge)
	}
	h.wheel = newWheel(period, h.clock, &h.writers)
	h.poller = newPoller()
	h.settings = connSettings{writeTimeout: cfg.WriteTimeout}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.ends.log = h.log
	for _, reason := range rejectReasons {
		h.rejects[reason] = new(atomic.Uint64)
	}
	return h
}

// AllowOrigins replaces Origins.Allow for all later requests. Streams of origins that are no
// longer allowed stay open.
func (h *Handler) AllowOrigins(allow []string) {
	origins := h.cfg.Origins
	origins.Allow = slices.Clone(allow)
	h.origins.Store(&origins)
}

// SetCORS sets the CORS headers on a response other than a stream, so that a page can distinguish
// a wrong path from a network error.
func (h *Handler) SetCORS(header http.Header, r *http.Request) { h.origins.Load().allow(header, r) }

// ServeHTTP answers one request. Over HTTP/1 without TLS it returns as soon as the stream has
// started; Wait waits for the stream. Otherwise it blocks until the stream has ended.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.SetCORS(w.Header(), r)
	origins := h.origins.Load()
	if err := origins.check(r); err != nil {
		h.rejectPermanently(w, r, http.StatusForbidden, "origin", err)
		return
	}
	switch {
	case r.Method == http.MethodGet:
		h.serve(w, r)
	case r.Method == http.MethodOptions && origins.preflight(w, r):
	default:
		w.Header().Set("Allow", http.MethodGet)
		h.rejectPermanently(w, r, http.StatusMethodNotAllowed, "bad-request", errors.New("method not allowed; use GET"))
	}
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r)
	if err != nil {
		h.rejectPermanently(w, r, http.StatusBadRequest, "bad-request", err)
		return
	}
	if _, ok := connOf[*overflowConn](r); ok {
		w.Header().Set("Connection", "close") // the next overflow connection waits for this
		h.rejectTemporarily(w, r, q, "", "clients")
		return
	}
	if err := h.cfg.Hub.Refusal(); err != nil { // applies to all users, so authentication is not needed
		h.rejectTemporarily(w, r, q, "", hubRejectReason(err))
		return
	}
	switch err := discardBody(w, r); {
	case errors.Is(err, io.ErrUnexpectedEOF): // the client has disconnected: not counted as a rejection
		writeError(w, http.StatusBadRequest, err.Error())
		return
	case err != nil:
		h.rejectPermanently(w, r, http.StatusBadRequest, "bad-request", err)
		return
	}
	before := h.cfg.Hub.Disconnections()
	id, err := h.authenticate(r, q.topics)
	switch {
	case errors.Is(err, auth.ErrUnauthorized):
		h.rejectPermanently(w, r, http.StatusUnauthorized, "unauthorized", err)
		return
	case errors.Is(err, auth.ErrForbidden):
		h.rejectPermanently(w, r, http.StatusForbidden, "unauthorized", err)
		return
	case errors.Is(err, auth.ErrBadUser):
		h.rejectUser(w, r, id.User, http.StatusForbidden, "bad-user", err)
		return
	case errors.Is(err, auth.ErrMalformed):
		h.rejectPermanently(w, r, http.StatusBadRequest, "bad-request", err)
		return
	case errors.Is(err, auth.ErrUnknownKey): // counted separately: anyone can forge such a token, while auth-unavailable means an outage
		h.rejects["unknown-key"].Add(1)
		h.busy(w, r, q, "", "auth-unavailable")
		return
	case errors.Is(err, auth.ErrExpired):
		h.rejected.note(h.log, r, "", "expired", err)
		h.rejectTemporarily(w, r, q, "", "expired")
		return
	case err != nil && r.Context().Err() != nil: // the client has disconnected: not counted as a rejection
		h.busy(w, r, q, "", "auth-unavailable")
		return
	case err != nil:
		h.log.Debug("authentication unavailable", slog.Any("error", err)) // once per retry of each browser, hence debug level
		h.rejectTemporarily(w, r, q, "", "auth-unavailable")
		return
	}
	if q.topics, err = visible(q.topics, id.Topics); err != nil {
		h.rejectUser(w, r, id.User, http.StatusForbidden, "topic", err)
		return
	}

	h.count(+1)
	s := newStream(h, r, q, id.Expires)
	s.client, err = h.cfg.Hub.Register(q.options(id.User, id.Groups, s))
	if err != nil {
		h.count(-1)
		h.rejectTemporarily(w, r, q, id.User, hubRejectReason(err))
		return
	}
	// End the stream if the user was disconnected during authentication, because the identity may be older. Also
	// end it if a recheck is due and the limit of rechecks is reached. In both cases the page reconnects later.
	if h.cfg.Hub.Disconnected(id.User, before) || id.Recheck != nil && id.Recheck.Due && !h.rechecks.add(s, id.Recheck) {
		s.client.Finish(hub.ReasonKicked)
	}
	s.awaitEnd()
	t, detached, failure := h.open(w, r, s.client, s.opening(q))
	switch {
	case failure != 0:
		s.fail(failure)
	case detached:
		s.start(t)
	default:
		s.done = make(chan struct{})
		s.start(t)
		s.watch(t.(watchedTransport))
		<-s.done
	}
}

// Cork announces that a feed is about to publish several messages. Until Uncork, fewer writer
// goroutines are started, because Uncork writes to streams itself. The feed must not block
// between the two calls.
func (h *Handler) Cork() { h.writers.cork() }

// Uncork writes to some of the streams with pending writes, and leaves the others to writer
// goroutines. It never waits for a reader.
func (h *Handler) Uncork() { h.writers.uncork() }

// authenticate returns the identity of a request and checks that its user id and its groups are valid. It does not reject a request
// because of a cached identity, which may be outdated: it authenticates the request again first.
func (h *Handler) authenticate(r *http.Request, topics []string) (auth.Identity, error) {
	start := time.Now()
	id, err := h.cfg.Authenticate(r)
	check := func() error {
		if err := auth.CheckUser(id.User, h.cfg.Hub.BroadcastUser(), h.cfg.TopicSeparator); err != nil {
			return err
		}
		return auth.CheckGroups(id.Groups, h.cfg.MaxGroups, h.cfg.TopicSeparator)
	}
	if again := id.Recheck; err == nil && id.Cached && again != nil {
		if _, denied := visible(topics, id.Topics); denied != nil || check() != nil {
			id, err = again.Ask(r.Context())
			id.Recheck = again
		}
	}
	h.auth.Observe(time.Since(start))
	if err == nil {
		err = check()
	}
	return id, err
}

// count counts what Wait waits for. A sync.WaitGroup could panic here: requests can arrive during
// Wait, and Add must not be called on a counter of zero while Wait runs.
func (h *Handler) count(change int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live += change; h.live == 0 {
		h.none.Broadcast()
	}
}

// Wait blocks until all streams have ended. Before calling it, make the hub reject new streams
// (hub.Hub.Refuse) or stop accepting requests.
func (h *Handler) Wait() {
	h.endHeld(true)
	h.waitForStreams()
	h.ends.summarize()
}

func (h *Handler) waitForStreams() {
	h.mu.Lock()
	for h.live > 0 {
		h.none.Wait()
	}
	h.mu.Unlock()
	h.poller.Wait()
}

// clock returns a monotonic time.
func (h *Handler) clock() time.Duration { return time.Since(h.began) }

// retry returns the delay after which a client reconnects, with jitter so that clients do not
// reconnect at the same time.
func (h *Handler) retry() time.Duration { return jitter(h.cfg.Retry) }

// jitter returns d ± 50 %.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }
