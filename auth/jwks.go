package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"golang.org/x/time/rate"
)

const (
	maxJWKS   = 1 << 20         // bytes
	refreshed = time.Hour       // between fetches, ±10 %
	refill    = 5 * time.Second // one more fetch for an unknown kid, and how long one is known to be absent
	burst     = 3
	maxAbsent = 256
)

var errUnknownKey = no("the token is signed with a key that is not in the key set")

var errNoKeys = errors.New("the keys that tokens are signed with cannot be fetched now")

// jwks keeps a JWK set up to date.
type jwks struct {
	// Immutable after startJWKS.
	url, shown string // shown has no userinfo and no query
	timeout    time.Duration
	log        *slog.Logger
	client     *http.Client
	limit      *rate.Limiter
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup

	mu sync.Mutex
	// Guarded by mu.
	keys   []verifyKey
	absent map[string]time.Time // until when a kid is known not to be there
	flight *flight              // the fetch under way, or nil
	down   bool
	closed bool
}

// A flight is a fetch that any number of requests wait for.
type flight struct {
	done chan struct{}
	err  error // set before done is closed
}

func startJWKS(address string, timeout time.Duration, log *slog.Logger) (*jwks, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the JWKS URL is not an http:// or https:// URL") // it may hold a password
	}
	j := &jwks{
		url: address, shown: (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String(),
		timeout: timeout, log: log,
		limit:  rate.NewLimiter(rate.Every(refill), burst),
		absent: map[string]time.Time{},
		client: &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute},
			Timeout:       timeout,
			CheckRedirect: followFrom(u.Scheme),
		},
	}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	j.wg.Go(j.run)
	return j, nil
}

// followFrom follows redirects, but not many, and not from https to where anybody could say
// what the keys are.
func followFrom(scheme string) func(*http.Request, []*http.Request) error {
	return func(r *http.Request, via []*http.Request) error {
		if len(via) >= 5 || scheme == "https" && r.URL.Scheme != "https" {
			return errors.New("redirected too often, or away from https")
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

func (j *jwks) run() {
	wait := time.Second
	for {
		j.mu.Lock()
		f := j.fly(false)
		j.mu.Unlock()
		if f == nil {
			return
		}
		<-f.done
		next := time.Duration(float64(refreshed) * (0.9 + 0.2*rand.Float64()))
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
	}
}

// fly joins the fetch under way or starts one; nil: it may not. Call with mu held.
func (j *jwks) fly(limited bool) *flight {
	if j.flight != nil {
		return j.flight
	}
	if j.closed || limited && !j.limit.Allow() {
		return nil
	}
	f := &flight{done: make(chan struct{})}
	j.flight = f
	j.wg.Go(func() {
		defer close(f.done)
		keys, err := j.fetch()
		j.mu.Lock()
		defer j.mu.Unlock()
		f.err, j.flight = err, nil
		switch {
		case err == nil:
			j.keys = keys
			clear(j.absent)
			if j.down {
				j.log.Info("the key set can be fetched again", slog.String("url", j.shown))
			}
		case !j.down && j.ctx.Err() == nil:
			j.log.Warn("the key set cannot be fetched; known keys still count", slog.String("url", j.shown), slog.Any("error", err))
		}
		j.down = err != nil
	})
	return f
}

// find returns the keys with this id; without one, the only key for alg.
func (j *jwks) find(ctx context.Context, kid string, hasKid bool, alg string) ([]verifyKey, error) {
	j.mu.Lock()
	keys := j.keys
	if keys != nil {
		if found := pick(keys, kid, hasKid, alg); len(found) > 0 {
			j.mu.Unlock()
			return one(found, hasKid)
		}
		if !hasKid || time.Now().Before(j.absent[kid]) {
			j.mu.Unlock()
			return nil, errUnknownKey
		}
	}
	j.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, j.timeout)
	defer cancel()
	// A fetch that was under way may have been answered before the key was published: only
	// the one after it proves that there is none.
	for proof := false; ; proof = true {
		j.mu.Lock()
		joined := j.flight != nil
		f := j.fly(true)
		j.mu.Unlock()
		if f == nil {
			return nil, errNoKeys
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, errNoKeys
		}
		if f.err != nil {
			return nil, errNoKeys
		}
		j.mu.Lock()
		found := pick(j.keys, kid, hasKid, alg)
		absent := len(found) == 0 && (proof || !joined)
		if absent && hasKid {
			if len(j.absent) >= maxAbsent {
				clear(j.absent)
			}
			j.absent[kid] = time.Now().Add(refill)
		}
		j.mu.Unlock()
		switch {
		case len(found) > 0:
			return one(found, hasKid)
		case absent:
			return nil, errUnknownKey
		}
	}
}

func pick(keys []verifyKey, kid string, hasKid bool, alg string) (found []verifyKey) {
	for _, k := range keys {
		if hasKid && k.id == kid || !hasKid && slices.Contains(k.algs, alg) {
			found = append(found, k)
		}
	}
	return found
}

func one(found []verifyKey, hasKid bool) ([]verifyKey, error) {
	if !hasKid && len(found) > 1 {
		return nil, no("the token does not say which key signed it, and several could have")
	}
	return found[:min(len(found), 8)], nil
}

func (j *jwks) fetch() ([]verifyKey, error) {
	req, err := http.NewRequestWithContext(j.ctx, "GET", j.url, nil)
	if err != nil {
		return nil, errors.New("the URL cannot be asked")
	}
	resp, err := j.client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which may hold a password
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %d, not 200", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > maxJWKS {
		return nil, errors.New("the answer is longer than 1 MiB")
	}
	return parseJWKS(body)
}

// parseJWKS returns the usable keys of a set. Others, a symmetric one above
// all, are left out (RFC 7517, section 5): one odd key must not void the rest.
func parseJWKS(body []byte) ([]verifyKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(body, &set) != nil {
		return nil, errors.New("the answer is not a JWK set")
	}
	var keys []verifyKey
	for _, raw := range set.Keys {
		var m struct {
			Kid, Alg, Use string
			D             any // of a private key, which by now is everybody's
		}
		if json.Unmarshal(raw, &m) != nil || m.D != nil || m.Use != "" && m.Use != "sig" {
			continue
		}
		jwk, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			continue
		}
		algs, err := algsOf(jwk.Key())
		if err != nil || m.Alg != "" && !slices.Contains(algs, m.Alg) {
			continue
		}
		if m.Alg != "" {
			algs = []string{m.Alg}
		}
		keys = append(keys, verifyKey{id: m.Kid, algs: algs, key: jwk.Key()})
	}
	if len(keys) == 0 {
		return nil, errors.New("the answer has no usable key")
	}
	return keys, nil
}
