package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"usercast/internal/revoked"
)

// ForwardConfig says which app to ask, and how hard.
type ForwardConfig struct {
	URL         *url.URL      // what to GET; a user and password in it are sent unless the browser sends Authorization
	UserHeader  string        // of a yes: who it is; "": UserHeader
	Timeout     time.Duration // from asking to the answer; 0: 2 s
	Cache       time.Duration // for how long a yes is believed, from when it was asked for; 0: not at all
	Concurrency int           // maximum of questions at once, fewer if the app is slow; 0: 32
	Proxies     Proxies       // whose X-Forwarded-* are passed on as they are
	Logger      *slog.Logger  // nil: silent
}

// A Forward asks the app who sent a request, with the headers by which the app knows its
// users. It is safe for concurrent use.
type Forward struct {
	// Immutable after NewForward.
	cfg     ForwardConfig
	client  *http.Client
	limiter *limiter       // has a lock of its own
	revoked *revoked.Users // whom to ask about anew
	ctx     context.Context
	stop    context.CancelFunc

	outage     outage
	redirected atomic.Bool // that has been logged

	// Guarded by mu.
	mu        sync.Mutex
	answers   answers
	questions map[answerKey]*question
	closed    bool
	asking    sync.WaitGroup // goroutines; added to while not closed
}

// A question is one that the app has yet to answer. All who would ask the same wait for it.
type question struct {
	header  http.Header
	key     answerKey
	address netip.Addr         // of the client
	leave   context.CancelFunc // ends the wait for its turn
	done    chan struct{}      // closed when there is an answer

	// Guarded by Forward.mu.
	who    int  // who wait for it
	placed bool // the app has it, or is about to

	// Set before done is closed.
	asked    time.Time // when the app got it; zero: it did not
	id       Identity
	err      error
	outdated bool // something of the user was revoked since it was asked
}

// Bounds on what an app may make the hub read for one answer, in bytes.
const (
	maxAnswerHeader = 64 << 10
	maxAnswerBody   = 64 << 10
)

// idleTime is how long a connection to the app stays open for the next question: of use in
// a storm only.
const idleTime = 5 * time.Second

// Why the app did not say yes or no.
var (
	errClosed   = errors.New("the hub is stopping")
	errCrowded  = errors.New("too many session checks are queued: the app answers too slowly")
	errRevoked  = errors.New("what the app said was revoked meanwhile, again and again")
	errDeserted = errors.New("nobody waits for the answer any more")
)

// ErrRedirected is the ErrUnauthorized of an app that leads whoever asks to a log-in page.
var ErrRedirected = fmt.Errorf("%w: the app asks for a log-in", ErrUnauthorized)

// NewForward makes an authenticator that asks nobody yet.
func NewForward(cfg ForwardConfig) *Forward {
	cfg.UserHeader = cmp.Or(cfg.UserHeader, UserHeader)
	cfg.Timeout = cmp.Or(cfg.Timeout, 2*time.Second)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 32)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	transport := &http.Transport{ // without a proxy: cookies are for the app alone
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // there is nothing to unpack
		MaxResponseHeaderBytes: maxAnswerHeader,
		MaxIdleConns:           cfg.Concurrency,
		MaxIdleConnsPerHost:    cfg.Concurrency,
		IdleConnTimeout:        idleTime,
	}
	f := &Forward{
		cfg: cfg,
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		limiter:   newLimiter(cfg.Concurrency, cfg.Timeout),
		revoked:   revoked.New(RecheckWindow),
		answers:   newAnswers(),
		questions: make(map[answerKey]*question),
	}
	f.ctx, f.stop = context.WithCancel(context.Background())
	return f
}

// Close ends questions under way, and returns when none is. Later requests are told
// "not now".
func (f *Forward) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.stop()
	f.asking.Wait()
	f.client.CloseIdleConnections()
}

// Stats are the checks of a Forward at one moment.
type Stats struct {
	Concurrency int // current maximum of checks in flight
	InFlight    int // checks that the app has not answered yet
	Waiting     int // checks that wait for their turn
}

// Stats returns how many checks are in flight and waiting.
func (f *Forward) Stats() Stats { return f.limiter.stats() }

// Forget drops what the app has said of a user, and does not believe what it is saying now.
func (f *Forward) Forget(user string) {
	f.revoked.Add(user) // before they are dropped: what is kept after that must see it
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers.forget(user)
}

// Authenticate is an Authenticator. Requests with the same credentials that come
// meanwhile share one question. One that nobody waits for any more is not asked, unless
// the app has it already. A rejection is always of a question that was asked after the
// request arrived.
func (f *Forward) Authenticate(r *http.Request) (Identity, error) {
	header := f.headers(r)
	q := question{header: header, key: keyOf(header), address: f.cfg.Proxies.client(r)}
	id, err := f.authenticate(r.Context(), q, true)
	if err != nil {
		return Identity{}, err
	}
	id.Recheck = &Recheck{
		Ask:   func(ctx context.Context) (Identity, error) { return f.authenticate(ctx, q, false) },
		Due:   f.revoked.Within(id.User),
		Bytes: sizeOf(header),
	}
	return id, nil
}

// authenticate returns an answer that was given before the call only if cached allows it.
func (f *Forward) authenticate(ctx context.Context, ask question, cached bool) (Identity, error) {
	arrived := time.Now()
	for range 3 {
		q, id, err := f.join(ask, cached)
		if q == nil {
			id.Cached = true
			return id, err
		}
		select {
		case <-q.done:
			early := !q.asked.IsZero() && q.asked.Before(arrived)
			// A rejection that is older than the request may be older than the login.
			if q.outdated || early && (IsPermanent(q.err) || !cached && q.err == nil) {
				continue
			}
			id = q.id
			id.Cached = early
			return id, q.err
		case <-ctx.Done():
			f.part(q)
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

// join returns what is known, or the question to wait for.
func (f *Forward) join(ask question, cached bool) (*question, Identity, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id, known := f.answers.find(ask.key, time.Now()); known && cached {
		return nil, id, nil
	}
	if q := f.questions[ask.key]; q != nil {
		q.who++
		return q, Identity{}, nil
	}
	if f.closed {
		return nil, Identity{}, errClosed
	}
	ctx, leave := context.WithCancel(f.ctx)
	q := &ask
	q.leave, q.done, q.who = leave, make(chan struct{}), 1
	f.questions[q.key] = q
	f.asking.Go(func() { f.put(ctx, q) })
	return q, Identity{}, nil
}

// part is for who does not wait any more.
func (f *Forward) part(q *question) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.who--; q.who == 0 && !q.placed && f.questions[q.key] == q {
		delete(f.questions, q.key) // nobody is to join what is given up
		q.leave()
	}
}

// headers makes the headers to ask with: all by which an app can decide, none that is
// between the browser and us.
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
		"X-Requested-With": {"XMLHttpRequest"}, // frameworks then answer 401 and not a log-in page
		"User-Agent":       {"usercast"},
	}
	for _, name := range []string{"Authorization", "Origin"} {
		if values := in.Values(name); len(values) > 0 {
			out[name] = values
		}
	}
	if cookies := in.Values("Cookie"); len(cookies) > 0 {
		out.Set("Cookie", strings.Join(cookies, "; "))
	}
	if f.cfg.Proxies.Sent(r) {
		for name, values := range in {
			if strings.HasPrefix(name, "X-Forwarded-") {
				out[name] = values
			}
		}
	}
	missing := func(name, value string) {
		if len(out[name]) == 0 {
			out[name] = []string{value}
		}
	}
	if ip, ok := peer(r); ok {
		missing("X-Forwarded-For", ip.String())
	}
	missing("X-Forwarded-Host", r.Host)
	if r.TLS != nil {
		missing("X-Forwarded-Proto", "https")
	} else {
		missing("X-Forwarded-Proto", "http")
	}
	return out
}

// put asks when it is the question's turn, keeps a yes, and tells those who wait.
func (f *Forward) put(ctx context.Context, q *question) {
	defer q.leave()
	var then uint64
	turn, err := f.limiter.wait(ctx, q.address)
	if err == nil && f.send(q) {
		q.asked, then = time.Now(), f.revoked.Count()
		q.id, err = f.ask(q.header)
		f.limiter.done(turn, outcomeOf(err))
	} else if err == nil {
		err = errDeserted
		f.limiter.done(turn, outcomeEnded)
	} else if f.ctx.Err() != nil {
		err = errClosed
	} else if ctx.Err() != nil {
		err = errDeserted
	}
	f.note(err)
	f.mu.Lock()
	defer f.mu.Unlock()
	q.err = err
	if IsPermanent(err) {
		f.answers.drop(q.key) // what it was allowed before
	}
	if err == nil {
		q.outdated = f.revoked.Since(q.id.User, then)
		if f.cfg.Cache > 0 && !q.outdated {
			f.answers.keep(q.key, q.id, time.Now(), q.asked.Add(f.cfg.Cache))
		}
	}
	if f.questions[q.key] == q {
		delete(f.questions, q.key)
	}
	close(q.done)
}

// send reports whether a question whose turn has come is still waited for. If so, it is sent even if all
// who wait leave from now on.
func (f *Forward) send(q *question) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	q.placed = q.who > 0
	return q.placed
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

// ask sends one request.
func (f *Forward) ask(header http.Header) (Identity, error) {
	ctx, cancel := context.WithTimeout(f.ctx, f.cfg.Timeout)
	defer cancel()
	req := (&http.Request{Method: http.MethodGet, URL: f.cfg.URL, Header: header}).WithContext(ctx)
	resp, err := f.client.Do(req)
	if err != nil {
		if f.ctx.Err() != nil {
			return Identity{}, errClosed
		}
		// What url.Error says of the URL may hold a password.
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err
		}
		return Identity{}, fmt.Errorf("ask the app who is there: %w", err)
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, maxAnswerBody) // then the connection serves the next question
	return f.read(resp)
}

// read makes of an answer yes, no, or that it is neither.
func (f *Forward) read(resp *http.Response) (Identity, error) {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		id, found, err := identity(resp.Header, f.cfg.UserHeader)
		if err != nil {
			return Identity{}, fmt.Errorf("the app's answer: %w", err)
		}
		if !found {
			return Identity{}, fmt.Errorf("the app answered 200 without %s", f.cfg.UserHeader)
		}
		return id, nil
	case code == http.StatusUnauthorized:
		return Identity{}, fmt.Errorf("%w: says the app", ErrUnauthorized)
	case code == http.StatusForbidden:
		return Identity{}, fmt.Errorf("%w: says the app", ErrForbidden)
	case code >= 300 && code < 400 && code != http.StatusNotModified:
		if !f.redirected.Swap(true) {
			f.cfg.Logger.Warn("the app answers who is asking with a redirect, which counts as not logged in; let it answer 401",
				slog.Int("status", code))
		}
		return Identity{}, ErrRedirected
	default:
		return Identity{}, fmt.Errorf("the app answered %d when asked who is there", code)
	}
}

// note logs when the app ceases to answer and when it answers again, not each time.
func (f *Forward) note(err error) {
	is := func(e error) bool { return errors.Is(err, e) }
	now := time.Now()
	switch {
	case is(errClosed), is(errDeserted):
	case err == nil, IsPermanent(err):
		if f.outage.works(now) {
			f.cfg.Logger.Info("the app says again who is asking")
		}
	case f.outage.fails(now):
		f.cfg.Logger.Warn("the app does not say who is asking; browsers are told to come back later", slog.Any("error", err))
	}
}
