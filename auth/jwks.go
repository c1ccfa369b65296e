package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxJWKSBytes    = 1 << 20
	refreshInterval = time.Hour       // between fetches, ±10 %
	fetchInterval   = 5 * time.Second // between fetches for tokens that no key verifies
	fetchBurst      = 3               // of these fetches

	unverifiedTime = time.Minute // minimum time for which a token that no key verified is remembered
	maxUnverified  = 4096        // such tokens within unverifiedTime; with more, that time is shorter
)

// ErrUnknownKey is a temporary rejection: no known key verifies the token, and the key set could
// not be fetched after the token was received. Anyone can forge such a token.
var ErrUnknownKey = errors.New("no known key verifies the token, and the key set is temporarily unavailable")

// errNoKeys means that the key set has not been fetched successfully since the start.
var errNoKeys = errors.New("signing keys are temporarily unavailable")

// jwks keeps a JWK set up to date.
type jwks struct {
	// Immutable after newJWKS.
	url, logURL string // logURL does not contain userinfo and query
	timeout     time.Duration
	log         *slog.Logger
	client      *http.Client
	limit       *rate.Limiter
	ctx         context.Context
	cancel      context.CancelFunc
	wg          sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	keys        []verifyKey // nil: not fetched yet
	keysNumber  uint64      // number of the fetch that returned keys
	fetchNumber uint64      // number of the newest fetch
	unverified  unverifiedTokens
	current     *fetch // the fetch in flight, or nil
	outage      causes // of the failed fetches since the last success
	closed      bool

	ignored map[IgnoredKey]bool // that were logged; owned by the fetch in flight
}

// unverifiedTokens records, for a token that no key verified, which fetch was the newest when the token was first
// received. A permanent rejection needs a later one. It is bounded in number and in time.
type unverifiedTokens struct {
	newer, older map[tokenHash]uint64
	since        time.Time // of newer
}

type tokenHash [sha256.Size]byte

// firstFetch returns the number of the fetch that was the newest when token was first received. That is newest if the token
// is not known.
func (u *unverifiedTokens) firstFetch(token tokenHash, newest uint64, now time.Time) uint64 {
	if len(u.newer) >= maxUnverified/2 || now.Sub(u.since) >= unverifiedTime {
		u.older, u.newer = u.newer, map[tokenHash]uint64{}
		if now.Sub(u.since) >= 2*unverifiedTime {
			u.older = nil
		}
		u.since = now
	}
	if n, ok := u.newer[token]; ok {
		return n
	}
	if n, ok := u.older[token]; ok {
		return n
	}
	u.newer[token] = newest
	return newest
}

// A fetch is one request for the set. Any number of callers can wait for it.
type fetch struct {
	number uint64
	done   chan struct{}
	err    error // set before done is closed
}

// newJWKS returns a set that is not fetched yet.
func newJWKS(address string, timeout time.Duration, log *slog.Logger) (*jwks, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the JWKS URL must be an http:// or https:// URL") // not quoted: it may contain a password
	}
	j := &jwks{
		url: address, logURL: (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String(),
		timeout: timeout, log: log,
		limit: rate.NewLimiter(rate.Every(fetchInterval), fetchBurst), ignored: make(map[IgnoredKey]bool),
		client: &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute},
			Timeout:       timeout,
			CheckRedirect: followFrom(u.Scheme),
		},
	}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	return j, nil
}

// start keeps the set up to date until close.
func (j *jwks) start() {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := j.fetch(false) // before any request can start a fetch that counts against the limit
	j.wg.Go(func() { j.run(first) })
}

// followFrom returns a CheckRedirect function that allows a limited number of redirects. It does not allow redirects
// from https to http, where an attacker could replace the keys.
func followFrom(scheme string) func(*http.Request, []*http.Request) error {
	return func(r *http.Request, via []*http.Request) error {
		if len(via) >= 5 || scheme == "https" && r.URL.Scheme != "https" {
			return errors.New("too many redirects, or redirected from https to http")
		}
		return nil
	}
}

func (j *jwks) close() {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.cancel()
	j.wg.Wait()
	j.client.CloseIdleConnections()
}

func (j *jwks) run(f *fetch) {
	wait := time.Second
	for f != nil {
		<-f.done
		next := time.Duration(float64(refreshInterval) * (0.9 + 0.2*rand.Float64()))
		if f.err != nil {
			next = time.Duration(float64(wait) * (0.5 + 0.5*rand.Float64()))
			wait = min(2*wait, time.Minute)
		} else {
			wait = time.Second
		}
		select {
		case <-time.After(next):
		case <-j.ctx.Done():
			return
		}
		j.mu.Lock()
		f = j.fetch(false)
		j.mu.Unlock()
	}
}

// fetch joins the fetch in flight or starts one. It returns nil if the rate limit is reached or j is closed. j.mu is held.
func (j *jwks) fetch(limited bool) *fetch {
	if j.current != nil {
		return j.current
	}
	if j.closed || limited && !j.limit.Allow() {
		return nil
	}
	j.fetchNumber++
	f := &fetch{number: j.fetchNumber, done: make(chan struct{})}
	j.current = f
	j.wg.Go(func() { j.complete(f) })
	return f
}

// complete fetches the set, stores its keys, and logs the beginning and the end of an outage. It does not hold the lock
// while it fetches and logs.
func (j *jwks) complete(f *fetch) {
	keys, ignored, err := j.download(j.ctx)
	j.logIgnored(ignored)
	j.mu.Lock()
	wasDown, isNews, now := len(j.outage) > 0, false, time.Now()
	if err == nil {
		j.keys, j.keysNumber = keys, f.number
		j.outage = nil
	} else if isNews = j.outage.isNews(causeOf(err), now); isNews {
		j.outage.add(causeOf(err), now)
	}
	f.err, j.current = err, nil
	j.mu.Unlock()
	defer close(f.done) // after the log line, so that the log contains the cause before the rejection
	switch {
	case err == nil && wasDown:
		j.log.Info("jwks fetch recovered", slog.String("url", j.logURL))
	case isNews && j.ctx.Err() == nil:
		j.log.Warn("jwks fetch failed, keeping known keys", slog.String("url", j.logURL), slog.Any("error", err))
	}
}

// known returns the keys, or nil if the set has not been fetched yet, and the number of their fetch.
func (j *jwks) known() ([]verifyKey, uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.keys, j.keysNumber
}

// verifyLater calls check with the keys of a later fetch than the one with this number: one that began after the token
// was first received. An older set might not contain the key yet. The error of the last check is a permanent rejection;
// err is that of the first one. If the fetch fails, verifyLater returns a temporary rejection.
func (j *jwks) verifyLater(ctx context.Context, raw string, number uint64, err error, check func([]verifyKey) error) error {
	token := tokenHash(sha256.Sum256([]byte(raw)))
	j.mu.Lock()
	first := j.unverified.firstFetch(token, j.fetchNumber, time.Now())
	j.mu.Unlock()
	timeout, cancel := context.WithTimeout(ctx, j.timeout)
	defer cancel()
	for number <= first {
		j.mu.Lock()
		f := j.fetch(true)
		unknown := ErrUnknownKey
		if j.keys == nil {
			unknown = errNoKeys
		}
		j.mu.Unlock()
		if f == nil {
			return unknown
		}
		select {
		case <-f.done:
		case <-timeout.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("the request ended: %w", ctx.Err())
			}
			return unknown
		}
		if f.err != nil {
			return unknown
		}
		var keys []verifyKey
		keys, number = j.known()
		if err = check(keys); err == nil {
			return nil
		}
	}
	return err
}

// download requests the set once.
func (j *jwks) download(ctx context.Context) ([]verifyKey, []IgnoredKey, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", j.url, nil)
	if err != nil {
		return nil, nil, errors.New("invalid URL")
	}
	resp, err := j.client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which may contain a password
		}
		return nil, nil, requestError("request", err, j.timeout)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("unexpected status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKSBytes+1))
	if err != nil {
		return nil, nil, requestError("reading the response", err, j.timeout)
	}
	if len(body) > maxJWKSBytes {
		return nil, nil, errors.New("the response exceeds 1 MiB")
	}
	return parseJWKS(body)
}

// An IgnoredKey is a key of a set that cannot be used.
type IgnoredKey struct {
	ID     string // kid; may be empty
	Reason string
}

const (
	maxIgnoredLines = 32   // ignored keys that are logged per fetch
	maxIgnored      = 1024 // ignored keys that are remembered, so that each is logged once
)

// logIgnored logs keys that were not ignored before, or for another reason.
func (j *jwks) logIgnored(keys []IgnoredKey) {
	if len(j.ignored) > maxIgnored {
		clear(j.ignored)
	}
	for _, k := range keys[:min(len(keys), maxIgnoredLines)] {
		if !j.ignored[k] {
			j.log.Info("jwks key ignored", slog.String("kid", k.ID), slog.String("reason", k.Reason), slog.String("url", j.logURL))
		}
		j.ignored[k] = true
	}
}

func (j *jwks) refetch(ctx context.Context) (changed bool, err error) {
	j.mu.Lock()
	before := j.keys
	j.mu.Unlock()
	// The response to a fetch that is in flight may be older than a change of the set.
	for again := false; ; again = true {
		j.mu.Lock()
		joined := j.current != nil
		f := j.fetch(false)
		j.mu.Unlock()
		if f == nil {
			return false, errNoKeys
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return false, errNoKeys
		}
		if f.err != nil {
			return false, f.err
		}
		if again || !joined {
			break
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return !reflect.DeepEqual(before, j.keys), nil
}
