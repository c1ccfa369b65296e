package auth

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"usercast/internal/revocation"
	"usercast/internal/unixsocket"
)

// ForwardConfig configures a Forward. URL is required; the zero value of each other field means its default.
type ForwardConfig struct {
	// URL receives a GET request per call. A user and password in it are sent unless the browser sends Authorization.
	URL *url.URL

	Host        string        // Host header of a call; default: the host of URL. TLS verifies the host of URL in any case
	Headers     []string      // names of further request headers that a call contains, if the browser sends them; default: none
	UserHeader  string        // response header with the user; default: the constant UserHeader
	Groups      bool          // read GroupsHeader of the response
	Timeout     time.Duration // maximum time of a call; default 2 s
	Cache       time.Duration // validity of an accepted call, from when it was sent; default 10 s; negative disables the cache
	Concurrency int           // maximum number of calls in flight, which is lower if the app is slow; default 32
	Proxies     Proxies       // networks whose X-Forwarded-* headers are passed on unchanged; default: none
	Logger      *slog.Logger  // default: no logging
}

// A Forward authenticates a request by a call to the app, with the headers by which the app knows its users: cookies,
// Authorization, Origin, User-Agent, ForwardConfig.Headers, X-Forwarded-* and Forwarded. Create it with NewForward, and close it after use. It is safe for concurrent use.
type Forward struct {
	// Immutable after NewForward.
	cfg         ForwardConfig
	forwarded   []string // names of the request headers that a call contains; Cookie and X-Forwarded-* have rules of their own
	client      *http.Client
	limiter     *limiter            // has its own lock
	revocations *revocation.Tracker // users whose earlier identities are outdated
	ctx         context.Context
	stop        context.CancelFunc

	logLimiter   logLimiter
	slowSessions *rate.Limiter // log lines about single sessions
	accepted     atomic.Bool   // the app has accepted a call

	// Guarded by mu.
	mu        sync.Mutex
	cache     cache
	calls     map[cacheKey]*call
	closed    bool
	lateTime  time.Time       // when a call with cookies last timed out
	late      error           // its error
	running   sync.WaitGroup  // goroutines of calls; added to while not closed
	redirects map[string]bool // redirects that were logged, by hint; at most maxRedirectKinds
}

// A call is one request to the app, queued or in flight. Requests with the same headers share it.
type call struct {
	header  http.Header
	key     cacheKey
	address netip.Addr         // of the client
	unix    bool               // the first request came from a Unix socket
	cancel  context.CancelFunc // ends its wait in the queue
	done    chan struct{}      // closed when the result is set

	// Guarded by Forward.mu.
	waiters int
	sent    bool // or about to be

	// The result, set before done is closed.
	sentAt   time.Time // zero: it was not sent
	id       Identity
	err      error
	outdated bool // the user had a revocation after sentAt
}

// Bounds of what the hub reads of one response, in bytes.
const (
	maxResponseHeader = 64 << 10
	maxResponseBody   = 64 << 10
)

// idleTime is how long a connection to the app stays open for the next call. This saves connections while many clients
// reconnect. It is much shorter than the default timeout of calls: a server that handles one connection at a time, as some
// development servers do, answers nothing else until the connection is closed.
const idleTime = time.Second

// Temporary failures of a call.
var (
	errClosed    = errors.New("the hub is shutting down")
	errQueueFull = errors.New("too many session checks are queued: the app responds too slowly")
	errRevoked   = errors.New("the app's response was repeatedly invalidated by disconnect commands")
	errAbandoned = errors.New("all waiting requests were canceled")
)

// NewForward returns a Forward. It sends nothing yet, and starts no goroutine.
func NewForward(cfg ForwardConfig) *Forward {
	cfg.UserHeader = cmp.Or(cfg.UserHeader, UserHeader)
	cfg.Timeout = cmp.Or(cfg.Timeout, 2*time.Second)
	cfg.Cache = cmp.Or(cfg.Cache, 10*time.Second)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 32)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	transport := &http.Transport{ // without HTTP_PROXY: only the app may receive cookies
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // the body is not used
		MaxResponseHeaderBytes: maxResponseHeader,
		MaxIdleConns:           cfg.Concurrency,
		MaxIdleConnsPerHost:    cfg.Concurrency,
		IdleConnTimeout:        idleTime,
	}
	f := &Forward{
		cfg:       cfg,
		forwarded: []string{"Authorization", "Origin", "User-Agent"},
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		limiter:     newLimiter(cfg.Concurrency, cfg.Timeout),
		revocations: revocation.New(RecheckWindow),
		cache:       newCache(),
		calls:       make(map[cacheKey]*call),
		redirects:   make(map[string]bool),

		slowSessions: rate.NewLimiter(rate.Every(time.Hour), 1),
	}
	for _, name := range cfg.Headers {
		f.forwarded = append(f.forwarded, http.CanonicalHeaderKey(name))
	}
	f.logLimiter.recovered = func() { f.cfg.Logger.Info("forward auth recovered") }
	f.ctx, f.stop = context.WithCancel(context.Background())
	return f
}

// Close cancels all calls and waits for them. These and all later requests receive a temporary error. It can be
// called more than once.
func (f *Forward) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.stop()
	f.running.Wait()
	f.logLimiter.close()
	f.client.CloseIdleConnections()
}

// ForwardStats is a snapshot of a Forward's calls.
type ForwardStats struct {
	Concurrency int // current limit of calls in flight
	InFlight    int // calls that the app has not answered yet
	Waiting     int // calls in the queue
}

// Stats returns a snapshot.
func (f *Forward) Stats() ForwardStats { return f.limiter.stats() }

// Forget removes a user from the cache and discards calls in flight that return this user. Call it when the user
// logs out.
func (f *Forward) Forget(user string) {
	f.revocations.Add(user) // before the cache is emptied: a call that ends after that must see it
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cache.deleteUser(user)
}

// Authenticate is an Authenticator. It blocks until the app has answered or the request's context ends. Concurrent requests
// with the same headers share one call, which is not sent if all of them have ended. A permanent rejection always
// results from a call that was sent after the request arrived.
func (f *Forward) Authenticate(r *http.Request) (Identity, error) {
	header := f.headers(r)
	want := call{header: header, key: keyOf(header), address: f.cfg.Proxies.client(r), unix: r.RemoteAddr == unixsocket.Peer}
	id, err := f.authenticate(r.Context(), want, true)
	if err != nil {
		return Identity{}, err
	}
	id.Recheck = &Recheck{
		Ask:   func(ctx context.Context) (Identity, error) { return f.authenticate(ctx, want, false) },
		Due:   f.revocations.Recent(id.User),
		Bytes: sizeOf(header),
	}
	return id, nil
}

// authenticate joins or starts the call that want describes. It returns an identity that was decided before it was
// called only if cached is true.
func (f *Forward) authenticate(ctx context.Context, want call, cached bool) (Identity, error) {
	arrived := time.Now()
	for range 3 {
		c, id, err := f.join(want, cached)
		if c == nil {
			id.Cached = true
			return id, err
		}
		select {
		case <-c.done:
			early := !c.sentAt.IsZero() && c.sentAt.Before(arrived)
			// A rejection that is older than the request may be older than the login.
			if c.outdated || early && (IsPermanent(c.err) || !cached && c.err == nil) {
				continue
			}
			id = c.id
			id.Cached = early
			return id, c.err
		case <-ctx.Done():
			f.leave(c)
			return Identity{}, fmt.Errorf("the request ended: %w", ctx.Err())
		}
	}
	return Identity{}, errRevoked
}

func sizeOf(h http.Header) (bytes int) {
	for name, values := range h {
		bytes += 64 + len(name)
		for _, value := range values {
			bytes += 16 + len(value)
		}
	}
	return bytes
}

// join returns the call to wait for. If that is nil, it returns the cached identity or an error.
func (f *Forward) join(want call, cached bool) (*call, Identity, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id, valid := f.cache.get(want.key, time.Now()); valid && cached {
		return nil, id, nil
	}
	if c := f.calls[want.key]; c != nil {
		c.waiters++
		return c, Identity{}, nil
	}
	if f.closed {
		return nil, Identity{}, errClosed
	}
	ctx, cancel := context.WithCancel(f.ctx)
	c := &want
	c.cancel, c.done, c.waiters = cancel, make(chan struct{}), 1
	f.calls[c.key] = c
	f.running.Go(func() { f.run(ctx, c) })
	return c, Identity{}, nil
}

// leave ends a request's wait for a call. The last request to leave cancels the call unless it was sent.
func (f *Forward) leave(c *call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.waiters--; c.waiters == 0 && !c.sent && f.calls[c.key] == c {
		delete(f.calls, c.key) // a canceled call must not be joined
		c.cancel()
	}
}

// headers returns the headers of a call: all on which an app can base its decision, without hop-by-hop headers.
func (f *Forward) headers(r *http.Request) http.Header {
	in := r.Header
	if names := in.Values("Connection"); len(names) > 0 { // RFC 9110, section 7.6.1
		in = in.Clone()
		for _, line := range names {
			for name := range strings.SplitSeq(line, ",") {
				in.Del(strings.TrimSpace(name))
			}
		}
	}
	out := http.Header{
		"Accept":           {"application/json"},
		"X-Requested-With": {"XMLHttpRequest"}, // frameworks then return 401 instead of a login page
		"User-Agent":       {""},               // without it, net/http would send its own
	}
	for _, name := range f.forwarded {
		if values := in.Values(name); len(values) > 0 {
			out[name] = values
		}
	}
	if cookies := in.Values("Cookie"); len(cookies) > 0 {
		out.Set("Cookie", strings.Join(cookies, "; "))
	}
	if f.cfg.Proxies.Sent(r) {
		for name, values := range in {
			if strings.HasPrefix(name, "X-Forwarded-") || name == "Forwarded" { // RFC 7239
				out[name] = values
			}
		}
	}
	missing := func(name, value string) {
		if len(out[name]) == 0 && value != "" { // HTTP/1.0 requests need no Host
			out[name] = []string{value}
		}
	}
	missing("X-Forwarded-Host", r.Host)
	if strings.Join(out["Forwarded"], "") != "" {
		return out // it states the address and the scheme, which those that the hub sees would contradict
	}
	if ip, ok := peer(r); ok {
		missing("X-Forwarded-For", ip.String())
	}
	if r.TLS != nil {
		missing("X-Forwarded-Proto", "https")
	} else {
		missing("X-Forwarded-Proto", "http")
	}
	return out
}

// run sends a call when the limiter allows it, caches the identity, and sets the result.
func (f *Forward) run(ctx context.Context, c *call) {
	defer c.cancel()
	var revocations uint64
	slot, err := f.limiter.wait(ctx, c.address)
	if err == nil && f.claim(c) {
		c.sentAt, revocations = time.Now(), f.revocations.Count()
		c.id, err = f.send(c.header, c.unix)
		f.limiter.done(slot, outcomeOf(err))
	} else if err == nil {
		err = errAbandoned
		f.limiter.done(slot, outcomeEnded)
	} else if f.ctx.Err() != nil {
		err = errClosed
	} else if ctx.Err() != nil {
		err = errAbandoned
	}
	diagnose := f.log(c.header, err)
	f.finish(c, err, revocations)
	if diagnose {
		f.diagnose(c.header, err)
	}
}

// finish sets the result of a call. The argument revocations is their number when the call was sent.
func (f *Forward) finish(c *call, err error, revocations uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.err = err
	if IsPermanent(err) {
		f.cache.delete(c.key) // an identity from an earlier call
	}
	if err == nil {
		c.outdated = f.revocations.Since(c.id.User, revocations)
		if f.cfg.Cache > 0 && !c.outdated {
			f.cache.put(c.key, c.id, time.Now(), c.sentAt.Add(f.cfg.Cache))
		}
	}
	if f.calls[c.key] == c {
		delete(f.calls, c.key)
	}
	close(c.done)
}

// claim reports whether a request still waits for a call. If so, the call is sent even if all requests leave from now on.
func (f *Forward) claim(c *call) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.sent = c.waiters > 0
	return c.sent
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil, IsPermanent(err):
		return outcomeAnswer
	case errors.Is(err, errClosed):
		return outcomeEnded
	}
	return outcomeNone
}

// send sends a call to the app. The argument unix is call.unix.
func (f *Forward) send(header http.Header, unix bool) (Identity, error) {
	ctx, cancel := context.WithTimeout(f.ctx, f.cfg.Timeout)
	defer cancel()
	req := (&http.Request{Method: http.MethodGet, URL: f.cfg.URL, Host: f.cfg.Host, Header: header}).WithContext(ctx)
	resp, err := f.client.Do(req)
	if err != nil {
		if f.ctx.Err() != nil {
			return Identity{}, errClosed
		}
		// The URL in a url.Error may contain a password.
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return Identity{}, requestError("session check", err, f.cfg.Timeout)
	}
	defer resp.Body.Close()
	var page bytes.Buffer
	body := io.Discard
	if mayRejectHost(resp.StatusCode) {
		body = &page
	}
	io.CopyN(body, resp.Body, maxResponseBody) // to its end if it is short, so that the connection can be reused
	return f.parse(resp, header, unix, page.Bytes())
}

// parse returns the identity in the response to a call with these headers, or a permanent or temporary error. It uses the
// page only if mayRejectHost returns true for the status.
func (f *Forward) parse(resp *http.Response, header http.Header, unix bool, page []byte) (Identity, error) {
	if err := f.hostError(resp.StatusCode, page); err != nil {
		return Identity{}, err
	}
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		id, found, err := identity(resp.Header, f.cfg.UserHeader, f.cfg.Groups, onlyUTF8)
		if err != nil {
			return Identity{}, fmt.Errorf("session check response: %w", err)
		}
		if !found {
			return Identity{}, WithHint(fmt.Errorf("the app returned 200 without %s", f.cfg.UserHeader),
				"let the session check set "+f.cfg.UserHeader+", or set --user-header to the header that it sets")
		}
		if id.User == "" {
			return Identity{}, WithHint(fmt.Errorf("%w: the app returned 200 with an empty %s", ErrUnauthorized, f.cfg.UserHeader),
				"return 401 for visitors that are not logged in, and a user id for others")
		}
		f.accepted.Store(true)
		return id, nil
	case code == http.StatusUnauthorized:
		return Identity{}, fmt.Errorf("%w: rejected by the app", ErrUnauthorized)
	case code == http.StatusForbidden:
		err := fmt.Errorf("%w: rejected by the app", ErrForbidden)
		if !f.accepted.Load() {
			err = WithHint(err, "the app has not accepted any session check yet; if it rejects every user, set --forward-host to a host name that it accepts, instead of "+f.host()+"; it must also accept the host name that browsers use")
		}
		return Identity{}, err
	case code >= 300 && code < 400 && code != http.StatusNotModified:
		err := f.redirectError(resp, header, unix)
		f.noteRedirect(err, code)
		return Identity{}, err
	case code == http.StatusBadRequest: // Django and others do not name the cause in the page
		return Identity{}, WithHint(fmt.Errorf("session check returned status %d", code),
			"if the app does not accept the Host "+f.host()+", set --forward-host to its host name")
	default:
		return Identity{}, fmt.Errorf("session check returned status %d", code)
	}
}

// log logs the beginning and the end of an outage of the app. It returns true if a line is due that diagnose must log,
// which takes time.
func (f *Forward) log(header http.Header, err error) (diagnose bool) {
	is := func(e error) bool { return errors.Is(err, e) }
	now := time.Now()
	switch {
	case is(errClosed), is(errAbandoned):
	case err == nil, IsPermanent(err):
		f.logLimiter.succeeded(now)
	case is(context.DeadlineExceeded) && len(header["Cookie"]) > 0:
		f.mu.Lock()
		f.late, f.lateTime = err, now
		f.mu.Unlock()
		return f.logLimiter.diagnose(causeOf(err), now)
	case is(errQueueFull) && f.hasLate(now):
		return f.logLimiter.diagnose(causeOf(err), now)
	default:
		f.logUnavailable(err)
	}
	return false
}

// hasLate reports whether a call with cookies timed out recently, so that a long queue may be due to locked sessions.
func (f *Forward) hasLate(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.lateTime.IsZero() && now.Sub(f.lateTime) < maxWait
}

// causeOf returns what identifies the cause of a failure: two failures with the same cause need one log line.
func causeOf(err error) string {
	var netErr net.Error
	if errors.Is(err, errQueueFull) || errors.As(err, &netErr) && netErr.Timeout() { // context.DeadlineExceeded is a net.Error
		return "too slow"
	}
	if e := (*net.OpError)(nil); errors.As(err, &e) { // its text may contain the port of the hub, which differs per call
		return e.Op + ": " + e.Err.Error()
	}
	return Hint(err) + err.Error()
}

// logUnavailable logs the failure of a call, if a line about its cause is due.
func (f *Forward) logUnavailable(err error) {
	if !f.logLimiter.failed(causeOf(err), time.Now()) {
		return
	}
	var attrs []any
	if hint := Hint(err); hint != "" {
		attrs = append(attrs, slog.String("hint", hint))
	}
	f.cfg.Logger.Warn("forward auth unavailable, asking browsers to retry later", append(attrs, slog.Any("error", err))...)
}
