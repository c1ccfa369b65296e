package auth

import (
	"context"
	"crypto/sha256"
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
	refill    = 5 * time.Second // between fetches for tokens that no key verifies
	burst     = 3               // of these fetches

	unverifiedTime = time.Minute // how long a token that no key verified is remembered, at least
	maxUnverified  = 4096        // such tokens within unverifiedTime; with more, that time is shorter
)

// ErrUnknownKey is a temporary rejection: no known key verifies the token, and the key set could
// not be fetched after the token was received. Anyone can forge such a token.
var ErrUnknownKey = errors.New("no known key verifies the token, and the key set cannot be fetched now")

// errNoKeys means that no key set was fetched since the start.
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
	keys       []verifyKey // nil: not fetched yet
	fetched    uint64      // the number of the fetch that keys are from
	begun      uint64      // the number of the newest fetch
	unverified unverified
	flight     *flight // the fetch under way, or nil
	down       bool
	closed     bool

	leftOut map[leftOut]bool // owned by fetch: of the last set, and logged
}

// unverified says, for a token that no key verified, which fetch was the newest when the token was first
// received: a permanent rejection rests on a later one. It is bounded in number and in time.
type unverified struct {
	newer, older map[tokenHash]uint64
	since        time.Time // of newer
}

type tokenHash [sha256.Size]byte

// first returns the fetch that was the newest when token was first received, which is now if the token
// is not known.
func (u *unverified) first(token tokenHash, begun uint64, now time.Time) uint64 {
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
	u.newer[token] = begun
	return begun
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
		limit: rate.NewLimiter(rate.Every(refill), burst),
		client: &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute},
			Timeout:       timeout,
			CheckRedirect: followFrom(u.Scheme),
		},
	}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	j.mu.Lock()
	defer j.mu.Unlock()
	first := j.fly(false) // before any request could count one against the limit
	j.wg.Go(func() { j.run(first) })
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

func (j *jwks) run(f *flight) {
	wait := time.Second
	for f != nil {
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
		j.mu.Lock()
		f = j.fly(false)
		j.mu.Unlock()
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
	j.begun++
	f, number := &flight{done: make(chan struct{})}, j.begun
	j.flight = f
	j.wg.Go(func() {
		defer close(f.done)
		keys, err := j.fetch()
		j.mu.Lock()
		defer j.mu.Unlock()
		f.err, j.flight = err, nil
		switch {
		case err == nil:
			j.keys, j.fetched = keys, number
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

// verify calls check with the known keys, then, if none verifies the token, with those of a fetch that
// began after the token was first received: any older set may lack the key. It returns what check says of
// that set, which is a permanent rejection, or a temporary one if there is no such set.
func (j *jwks) verify(ctx context.Context, raw string, check func([]verifyKey) error) error {
	j.mu.Lock()
	keys, fetched := j.keys, j.fetched
	j.mu.Unlock()
	var err error
	if keys != nil {
		if err = check(keys); err == nil {
			return nil
		}
	}
	token := tokenHash(sha256.Sum256([]byte(raw)))
	j.mu.Lock()
	first := j.unverified.first(token, j.begun, time.Now())
	j.mu.Unlock()
	timeout, cancel := context.WithTimeout(ctx, j.timeout)
	defer cancel()
	for fetched <= first {
		j.mu.Lock()
		f := j.fly(true)
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
		j.mu.Lock()
		keys, fetched = j.keys, j.fetched
		j.mu.Unlock()
		if err = check(keys); err == nil {
			return nil
		}
	}
	return err
}

// maxTried is how many keys are tried for one token.
const maxTried = 8

// find returns the keys with this id; without one, those for alg, as while a provider that
// publishes no ids replaces its key.
func find(keys []verifyKey, kid string, hasKid bool, alg string) ([]verifyKey, error) {
	found := pick(keys, kid, hasKid, alg)
	if len(found) == 0 {
		return nil, WithHint(no("the token is signed with a key that is not in the key set"), "--jwt-jwks-url must publish the key")
	}
	return found[:min(len(found), maxTried)], nil
}

func pick(keys []verifyKey, kid string, hasKid bool, alg string) (found []verifyKey) {
	for _, k := range keys {
		if hasKid && k.id == kid || !hasKid && slices.Contains(k.algs, alg) {
			found = append(found, k)
		}
	}
	return found
}

// fetch is called by one flight at a time.
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
	keys, leftOut, err := parseJWKS(body)
	j.logLeftOut(leftOut)
	return keys, err
}

// A leftOut is a key of a set that is not used.
type leftOut struct{ kid, reason string }

// maxLeftOut is how many keys are logged per set.
const maxLeftOut = 32

// logLeftOut logs keys that the last set did not have, or had for another reason.
func (j *jwks) logLeftOut(keys []leftOut) {
	seen := make(map[leftOut]bool)
	for _, k := range keys[:min(len(keys), maxLeftOut)] {
		if !seen[k] && !j.leftOut[k] {
			j.log.Info("ignoring a key of the key set", slog.String("kid", k.kid), slog.String("reason", k.reason), slog.String("url", j.shown))
		}
		seen[k] = true
	}
	j.leftOut = seen
}

// parseJWKS returns the usable keys of a set, and the others with the reason: one odd key must not void
// the rest (RFC 7517, section 5). Members that are not needed to verify are not read. Without a usable key
// it returns an error.
func parseJWKS(body []byte) (keys []verifyKey, left []leftOut, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(body, &set) != nil {
		return nil, nil, errors.New("the answer is not a JWK set")
	}
	for _, raw := range set.Keys {
		key, err := parseJWK(raw)
		if err != nil {
			left = append(left, leftOut{clip(key.id), err.Error()})
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, left, errors.New("the answer has no usable key")
	}
	return keys, left, nil
}

// parseJWK reads one key. With an error, the key has its id only. The error contains nothing of a private
// or symmetric key.
func parseJWK(raw json.RawMessage) (verifyKey, error) {
	var m struct {
		Kid, Alg, Use string
		Kty           jwkset.KTY
		Crv           jwkset.CRV
		X, Y, N, E    string
		D             any // of a private key, which by now is known to others
	}
	if json.Unmarshal(raw, &m) != nil {
		return verifyKey{id: m.Kid}, errors.New("not a JSON object with text members")
	}
	out := verifyKey{id: m.Kid}
	switch {
	case m.D != nil:
		return out, errors.New("a private key")
	case m.Use != "" && m.Use != "sig":
		return out, fmt.Errorf("its use is %q, not \"sig\"", clip(m.Use))
	}
	jwk, err := jwkset.NewJWKFromMarshal(jwkset.JWKMarshal{KTY: m.Kty, CRV: m.Crv, X: m.X, Y: m.Y, N: m.N, E: m.E},
		jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil { // in the words of the library, which may quote what it cannot read
		return out, fmt.Errorf("a key of type %q and curve %q that cannot be read", clip(string(m.Kty)), clip(string(m.Crv)))
	}
	algs, err := algsOf(jwk.Key())
	switch alg := algorithm(m.Alg); {
	case err != nil:
		return out, err
	case alg != "" && !slices.Contains(algs, alg):
		return out, fmt.Errorf("its alg is %q, which does not fit its type", clip(m.Alg))
	case alg != "":
		algs = []string{alg}
	}
	out.algs, out.key = algs, jwk.Key()
	return out, nil
}
