package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// ForwardConfig says which app to ask, and how hard.
type ForwardConfig struct {
	URL         *url.URL      // what to GET; a user and password in it are sent unless the browser sends Authorization
	UserHeader  string        // of a yes: who it is; "": UserHeader
	Timeout     time.Duration // from asking to the answer; 0: 2 s
	Cache       time.Duration // for how long a yes is believed, from when it was asked for; 0: not at all
	Concurrency int           // questions at once; 0: 32
	Proxies     Proxies       // whose X-Forwarded-* are passed on as they are
	Log         *slog.Logger  // nil: silent
}

// A Forward asks the app who sent a request, with the headers by which the app knows its
// users. It is safe for concurrent use.
type Forward struct {
	// Immutable after NewForward.
	cfg    ForwardConfig
	client *http.Client
	places chan struct{} // one element for each question under way
	ctx    context.Context
	stop   context.CancelFunc

	answers    answers
	flights    singleflight.Group
	down       atomic.Bool // the last question had no answer
	redirected atomic.Bool // that has been logged

	mu     sync.Mutex
	closed bool
	asking sync.WaitGroup // added to under mu, while not closed
}

// Bounds on what an app may make the hub read for one answer, in bytes.
const (
	maxAnswerHeader = 64 << 10
	maxAnswerBody   = 64 << 10
)

// idleTime is how long a connection to the app stays open for the next question: of use in
// a storm only.
const idleTime = 5 * time.Second

// placeTime is how long a question waits for its turn: the Timeout is for the app, which
// has yet to hear of it.
const placeTime = 10 * time.Second

// Why the app did not say yes or no.
var (
	errClosed  = errors.New("the hub is stopping")
	errCrowded = errors.New("the app is asked as much at once as it may be, for too long")
)

// NewForward makes an authenticator that asks nobody yet.
func NewForward(cfg ForwardConfig) *Forward {
	cfg.UserHeader = cmp.Or(cfg.UserHeader, UserHeader)
	cfg.Timeout = cmp.Or(cfg.Timeout, 2*time.Second)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 32)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil               // cookies are for the app alone
	transport.DisableCompression = true // there is nothing to unpack
	transport.MaxResponseHeaderBytes = maxAnswerHeader
	transport.MaxIdleConns = cfg.Concurrency
	transport.MaxIdleConnsPerHost = cfg.Concurrency
	transport.IdleConnTimeout = idleTime
	f := &Forward{
		cfg: cfg,
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		places:  make(chan struct{}, cfg.Concurrency),
		answers: newAnswers(),
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

// Forget drops what the app has said of a user, and does not keep what it is saying now.
func (f *Forward) Forget(user string) { f.answers.forget(user) }

// Authenticate is an Authenticator. Requests with the same credentials that come
// meanwhile share one question.
func (f *Forward) Authenticate(r *http.Request) (Identity, error) {
	header := f.question(r)
	key := keyOf(header)
	id, known, era := f.answers.find(key, time.Now())
	if known {
		return id, nil
	}
	// What was asked before somebody was forgotten is no answer to who comes after that.
	name := strconv.FormatUint(era, 10) + "." + string(key[:])
	answer := f.flights.DoChan(name, func() (any, error) { return f.answer(header, key, era) })
	select {
	case a := <-answer:
		if a.Err != nil {
			return Identity{}, a.Err
		}
		return a.Val.(Identity), nil
	case <-r.Context().Done():
		return Identity{}, fmt.Errorf("the request ended: %w", r.Context().Err())
	}
}

// question makes the headers to ask with: all by which an app can decide, none that is
// between the browser and us.
func (f *Forward) question(r *http.Request) http.Header {
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

// answer asks when it is its turn, and keeps a yes.
func (f *Forward) answer(header http.Header, key answerKey, era uint64) (Identity, error) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return Identity{}, errClosed
	}
	f.asking.Add(1)
	f.mu.Unlock()
	defer f.asking.Done()

	// Somebody else may have had the answer between our look and this question.
	if id, known, _ := f.answers.find(key, time.Now()); known {
		return id, nil
	}
	turn := time.NewTimer(placeTime)
	defer turn.Stop()
	select {
	case f.places <- struct{}{}:
		defer func() { <-f.places }()
	case <-turn.C:
		return Identity{}, errCrowded
	case <-f.ctx.Done():
		return Identity{}, errClosed
	}
	asked := time.Now()
	id, err := f.ask(header)
	f.note(err)
	if err == nil && f.cfg.Cache > 0 {
		f.answers.keep(key, id, asked.Add(f.cfg.Cache), era)
	}
	return id, err
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
			f.cfg.Log.Warn("the app answers who is asking with a redirect, which counts as not logged in; let it answer 401",
				slog.Int("status", code))
		}
		return Identity{}, fmt.Errorf("%w: the app asks for a log-in", ErrUnauthorized)
	default:
		return Identity{}, fmt.Errorf("the app answered %d when asked who is there", code)
	}
}

// note logs when the app ceases to answer and when it answers again, not each time.
func (f *Forward) note(err error) {
	said := err == nil || slices.ContainsFunc([]error{ErrUnauthorized, ErrForbidden, errClosed},
		func(e error) bool { return errors.Is(err, e) })
	switch {
	case !said && !f.down.Swap(true):
		f.cfg.Log.Warn("the app does not say who is asking; browsers are told to come back later", slog.Any("error", err))
	case said && f.down.Swap(false):
		f.cfg.Log.Info("the app says again who is asking")
	}
}
