package auth_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"usercast/auth"
)

// An issuer publishes one key, and signs tokens with it.
type issuer struct {
	*httptest.Server
	key     ed25519.PrivateKey
	kid     string
	fetches atomic.Int32
	down    atomic.Bool
}

func newIssuer(t *testing.T, kid string) *issuer {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, kid: kid}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		if i.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}]}`, kid, base64.RawURLEncoding.EncodeToString(pub))
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) token(t *testing.T, kid string) *http.Request {
	t.Helper()
	return bearer(sign(t, jwt.SigningMethodEdDSA, i.key, kid, `{"sub":"ann","exp":9e9}`))
}

func TestSeveralKeySets(t *testing.T) {
	t.Parallel()
	for name, kids := range map[string][2]string{"different ids": {"a", "b"}, "the same id": {"1", "1"}, "no ids": {"", ""}} {
		a, b, other := newIssuer(t, kids[0]), newIssuer(t, kids[1]), newIssuer(t, "c")
		j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{a.URL, b.URL}})
		for _, i := range []*issuer{a, b} {
			if _, err := j.Authenticate(i.token(t, i.kid)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := j.Authenticate(other.token(t, "c")); !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("%s: a key of another issuer: %v", name, err)
		}
	}
}

// A set that does not respond does not delay the tokens of other issuers.
func TestKeySetThatIsDownDoesNotStopTheOthers(t *testing.T) {
	t.Parallel()
	a, b := newIssuer(t, "a"), newIssuer(t, "b")
	hanging := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hanging:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(hanging) })
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{silent.URL, a.URL, b.URL}, Timeout: time.Hour})
	for _, i := range []*issuer{a, b, a} { // the first one also waits for the first fetch of its set
		if _, err := j.Authenticate(i.token(t, i.kid)); err != nil {
			t.Errorf("%s: %v", i.kid, err)
		}
	}
}

// The keys of a set that fails stay valid. Unknown keys are rejected permanently when all sets have been fetched.
func TestUnknownKeyOfSeveralKeySets(t *testing.T) {
	t.Parallel()
	a, b := newIssuer(t, "a"), newIssuer(t, "b")
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{a.URL, b.URL}})
	if _, err := j.Refetch(t.Context()); err != nil { // the first fetches of a request would count against the limit
		t.Fatal(err)
	}
	for _, i := range []*issuer{a, b} {
		if _, err := j.Authenticate(i.token(t, i.kid)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.Authenticate(a.token(t, "unknown")); !errors.Is(err, auth.ErrUnauthorized) || !strings.Contains(err.Error(), "not in the key set") {
		t.Errorf("an unknown key: %v", err)
	}
	if _, err := j.Authenticate(b.token(t, "a")); !errors.Is(err, auth.ErrUnauthorized) || !strings.Contains(err.Error(), "signature") {
		t.Errorf("a wrong signature: %v", err)
	}
	b.down.Store(true)
	if _, err := j.Authenticate(b.token(t, "b")); err != nil {
		t.Errorf("a known key of the set that fails: %v", err)
	}
	if _, err := j.Refetch(t.Context()); err == nil || !strings.Contains(err.Error(), b.URL) || strings.Contains(err.Error(), a.URL) {
		t.Errorf("refetch: %v", err)
	}
	// Each set is fetched at a bounded rate.
	before := [2]int32{a.fetches.Load(), b.fetches.Load()}
	start := time.Now()
	for n := range 50 {
		if _, err := j.Authenticate(a.token(t, fmt.Sprint("unknown ", 10+n))); err == nil || isPermanent(err) {
			t.Errorf("an unknown key while a set fails: %v", err)
		}
	}
	most := 3 + int32(time.Since(start)/(5*time.Second)) + 1
	if n, m := a.fetches.Load()-before[0], b.fetches.Load()-before[1]; n > most || m > most+8 { // b is also retried after its failures
		t.Errorf("%d and %d fetches for 50 unknown keys", n, m)
	}
}

// A set that fails makes the rejection temporary, whatever its place in the list.
func TestUnknownKeyWhileOneOfSeveralKeySetsFails(t *testing.T) {
	t.Parallel()
	for down := range 2 {
		sets := []*issuer{newIssuer(t, "a"), newIssuer(t, "b")}
		j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{sets[0].URL, sets[1].URL}})
		for _, i := range sets {
			if _, err := j.Authenticate(i.token(t, i.kid)); err != nil {
				t.Fatal(err)
			}
		}
		sets[down].down.Store(true)
		for _, kid := range []string{"unknown", sets[1-down].kid} { // the second one has a wrong signature
			if _, err := j.Authenticate(sets[down].token(t, kid)); !errors.Is(err, auth.ErrUnknownKey) {
				t.Errorf("set %d fails, kid %s: %v, want a temporary rejection", down, kid, err)
			}
		}
	}
}

// Close waits for the requests and the fetches of all sets.
func TestSeveralKeySetsLeaveNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	a, b := newIssuer(t, "a"), newIssuer(t, "b")
	j, err := auth.NewJWT(auth.JWTConfig{JWKSURLs: []string{a.URL, b.URL}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Authenticate(b.token(t, "b")); err != nil {
		t.Error(err)
	}
	j.Close()
	j.Close()
	a.Close()
	b.Close()
	if _, err := j.Authenticate(a.token(t, "unknown")); err == nil || isPermanent(err) {
		t.Errorf("after Close: %v", err)
	}
}

// A key that is left out is logged once, with the reason, also if it is missing from the set in between.
func TestIgnoredKeysAreLoggedOnce(t *testing.T) {
	t.Parallel()
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	good := map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "good", "x": base64.RawURLEncoding.EncodeToString(pub)}
	enc := map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "enc", "use": "enc", "x": good["x"]}
	weak := map[string]any{"kty": "RSA", "kid": "weak", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(new(big.Int).Lsh(big.NewInt(1), 1023).Bytes())}
	var set atomic.Pointer[[]any]
	set.Store(&[]any{good, enc, weak})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"keys": *set.Load()})
	}))
	t.Cleanup(s.Close)
	var log bytes.Buffer
	j, err := auth.NewJWT(auth.JWTConfig{JWKSURLs: []string{s.URL}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodEdDSA, key, "good", `{"sub":"ann","exp":9e9}`))); err != nil {
		t.Error(err)
	}
	changedEnc := map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "enc", "use": "other", "x": good["x"]}
	for _, next := range [][]any{{good}, {good, enc, weak}, {good, enc}, {good, weak, changedEnc}} {
		set.Store(&next)
		if _, err := j.Refetch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	j.Close()
	for line, want := range map[string]int{"jwks key ignored": 3, "kid=enc": 2, "kid=weak": 1, "fewer than 2048 bits": 1, "kid=good": 0} {
		if n := strings.Count(log.String(), line); n != want {
			t.Errorf("%q is logged %d times, want %d:\n%s", line, n, want, log.String())
		}
	}
}

// Google publishes keys as PEM by kid. Other objects are described.
func TestKeysAsPEM(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	var body atomic.Pointer[string]
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, *body.Load()) }))
	t.Cleanup(s.Close)
	publish := func(set any) {
		text, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		served := string(text)
		body.Store(&served)
	}
	publish(map[string]string{"old": string(pemOf("CERTIFICATE", []byte("x"))), "new": string(pemOf("CERTIFICATE", cert))})
	set, err := auth.FetchKeySet(t.Context(), s.URL, 10*time.Second)
	if err != nil || set.Usable != 1 || !slices.Equal(set.Ignored, []auth.IgnoredKey{{ID: "old", Reason: "not a usable certificate or public key in PEM"}}) {
		t.Errorf("%+v, %v", set, err)
	}
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	if _, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodRS256, key, "new", `{"sub":"ann","exp":9e9}`))); err != nil {
		t.Error(err)
	}
	if _, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodRS256, key, "old", `{"sub":"ann","exp":9e9}`))); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("a key with another id: %v", err)
	}
	for name, test := range map[string]struct {
		set  any
		want string
	}{
		"an OpenID configuration": {map[string]any{"issuer": "https://login.example", "jwks_uri": "https://login.example/keys", "scopes_supported": []string{}}, "use its jwks_uri: https://login.example/keys"},
		"an error":                {map[string]string{"error": "not found"}, "not a JWK set"},
		"no certificates":         {map[string]string{"a": string(pemOf("CERTIFICATE", nil))}, "does not contain a usable key"},
		"nothing":                 {map[string]string{}, "not a JWK set"},
		"a list":                  {[]string{}, "not a JWK set"},
	} {
		publish(test.set)
		if _, err := auth.FetchKeySet(t.Context(), s.URL, 10*time.Second); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// Of the keys without an id, only some are tried: a token must not cost more than that, however large the set.
func TestKeysWithoutIDAreTriedUpToABound(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	keys := []ed25519.PrivateKey{s.rotate("")}
	for range 8 {
		keys = append(keys, s.add(""))
	}
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	for n, key := range keys {
		_, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodEdDSA, key, "", `{"sub":"ann","exp":9e9}`)))
		if (err == nil) != (n < 8) || err != nil && !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("key %d: %v", n+1, err)
		}
	}
}
