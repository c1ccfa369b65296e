package auth_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"usercast/auth"
)

// A keyServer publishes one Ed25519 key as a JWK set.
type keyServer struct {
	*httptest.Server
	fetches atomic.Int32
	down    atomic.Bool
	set     atomic.Value // string
}

func newKeyServer(t *testing.T) *keyServer {
	t.Helper()
	s := &keyServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.fetches.Add(1)
		if s.down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, s.set.Load())
	}))
	t.Cleanup(s.Close)
	return s
}

// rotate replaces all published keys by a new one and returns its private part. If kid is "", the
// key is published without a kid.
func (s *keyServer) rotate(kid string) ed25519.PrivateKey {
	s.set.Store(`{"keys":[]}`)
	return s.add(kid)
}

// add publishes an additional key.
func (s *keyServer) add(kid string) ed25519.PrivateKey {
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	key := map[string]string{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(public)}
	if kid != "" {
		key["kid"] = kid
	}
	var published struct {
		Keys []any `json:"keys"`
	}
	json.Unmarshal([]byte(s.set.Load().(string)), &published)
	published.Keys = append(published.Keys, key)
	set, _ := json.Marshal(published)
	s.set.Store(string(set))
	return private
}

func edToken(t *testing.T, key ed25519.PrivateKey, kid, sub string) *http.Request {
	t.Helper()
	return bearer(sign(t, jwt.SigningMethodEdDSA, key, kid, fmt.Sprintf(`{"sub":%q,"exp":9e9}`, sub)))
}

// An identity provider may replace its key and keep the kid, or publish keys without a kid. The first request with a
// new token must not be rejected permanently.
func TestJWKSKeyReplacedUnderTheSameKid(t *testing.T) {
	for _, kid := range []string{"default", ""} {
		s := newKeyServer(t)
		old := s.rotate(kid)
		j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
		if _, err := j.Authenticate(edToken(t, old, kid, "ann")); err != nil {
			t.Fatal(err)
		}
		replaced := s.rotate(kid)
		if _, err := j.Authenticate(edToken(t, replaced, kid, "ann")); err != nil {
			t.Errorf("kid %q: the first token of the new key: %v", kid, err)
		}
		if _, err := j.Authenticate(edToken(t, old, kid, "ann")); !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("kid %q: a token of the replaced key: %v, want ErrUnauthorized", kid, err)
		}
		if n := s.fetches.Load(); n > 3 {
			t.Errorf("kid %q: %d fetches, want at most 3", kid, n)
		}
	}
}

// A provider that publishes keys without a kid publishes both keys for a while when it replaces one.
func TestJWKSKeysWithoutIDsThatOverlap(t *testing.T) {
	s := newKeyServer(t)
	old := s.rotate("")
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	if _, err := j.Authenticate(edToken(t, old, "", "ann")); err != nil {
		t.Fatal(err)
	}
	added := s.add("")
	for name, key := range map[string]ed25519.PrivateKey{"new": added, "old": old} {
		if _, err := j.Authenticate(edToken(t, key, "", "ann")); err != nil {
			t.Errorf("a token of the %s key: %v", name, err)
		}
	}
}

// While the endpoint is down, tokens that the known keys do not verify are rejected temporarily: they may be signed with
// a new key.
func TestJWKSUnverifiableTokenWhileTheEndpointIsDown(t *testing.T) {
	s := newKeyServer(t)
	known := s.rotate("a")
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	if _, err := j.Authenticate(edToken(t, known, "a", "ann")); err != nil {
		t.Fatal(err)
	}
	s.down.Store(true)
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	for name, r := range map[string]*http.Request{
		"known kid, other key":      edToken(t, other, "a", "ann"),
		"no kid, other key":         edToken(t, other, "", "ann"),
		"unknown kid":               edToken(t, other, "b", "ann"),
		"known kid, other key type": bearer(sign(t, jwt.SigningMethodES256, ec, "a", `{"sub":"ann","exp":9e9}`)),
		"no kid, other key type":    bearer(sign(t, jwt.SigningMethodES256, ec, "", `{"sub":"ann","exp":9e9}`)),
	} {
		for range 2 {
			if _, err := j.Authenticate(r); !errors.Is(err, auth.ErrUnknownKey) || isPermanent(err) {
				t.Errorf("%s: %v, want ErrUnknownKey and no permanent rejection", name, err)
			}
		}
	}
	if _, err := j.Authenticate(edToken(t, known, "a", "bob")); err != nil {
		t.Errorf("a token of the known key: %v", err)
	}
	// No key of any set can verify these tokens.
	for _, alg := range []string{"HS256", "none"} {
		token := sign(t, jwt.GetSigningMethod(alg), map[string]any{"HS256": secret, "none": jwt.UnsafeAllowNoneSignatureType}[alg], "a", `{"sub":"ann","exp":9e9}`)
		if _, err := j.Authenticate(bearer(token)); !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("%s: %v, want ErrUnauthorized", alg, err)
		}
	}
}

// A token before the first successful fetch indicates an outage, not a forged token.
func TestJWKSWithoutAnyKeyIsAnOutage(t *testing.T) {
	s := newKeyServer(t)
	key := s.rotate("a")
	s.down.Store(true)
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	if _, err := j.Authenticate(edToken(t, key, "a", "ann")); err == nil || isPermanent(err) || errors.Is(err, auth.ErrUnknownKey) {
		t.Errorf("%v, want a temporary rejection that is not ErrUnknownKey", err)
	}
}

// Anyone can forge signatures and kids. Neither may cause an unlimited number of fetches or look like an outage.
func TestJWKSForgedSignaturesAreBounded(t *testing.T) {
	s := newKeyServer(t)
	key := s.rotate("a")
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	if _, err := j.Authenticate(edToken(t, key, "a", "ann")); err != nil {
		t.Fatal(err)
	}
	_, forged, _ := ed25519.GenerateKey(rand.Reader)
	start, before, temporary := time.Now(), s.fetches.Load(), 0
	var last *http.Request
	for i := range 100 {
		last = edToken(t, forged, "a", fmt.Sprint("user", i))
		_, err := j.Authenticate(last)
		switch {
		case errors.Is(err, auth.ErrUnauthorized):
		case errors.Is(err, auth.ErrUnknownKey):
			temporary++
		default:
			t.Fatalf("a forged token: %v", err)
		}
	}
	if n, most := s.fetches.Load()-before, 3+int32(time.Since(start)/(5*time.Second)); n > most {
		t.Errorf("%d fetches for 100 forged tokens, want at most %d", n, most)
	}
	if temporary == 0 {
		t.Error("100 forged tokens were rejected permanently without a fetch after each")
	}
	// If the result of a later fetch does not verify a token, it is rejected permanently without another fetch.
	if _, err := j.Refetch(context.Background()); err != nil {
		t.Fatal(err)
	}
	after := s.fetches.Load()
	for range 10 {
		if _, err := j.Authenticate(last); !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("a token that was seen before the last fetch: %v, want ErrUnauthorized", err)
		}
	}
	if n := s.fetches.Load() - after; n != 0 {
		t.Errorf("%d fetches for a token that was seen before the last one", n)
	}
}

// Identity providers publish keys with various other members. RFC 7517, section 4, requires that unknown members are
// ignored.
func TestJWKWithUnusualMembers(t *testing.T) {
	public, ed, _ := ed25519.GenerateKey(rand.Reader)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	b64 := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	okp := `"kty":"OKP","crv":"Ed25519","kid":"a","x":"` + b64(public) + `"`
	p256 := `"kty":"EC","crv":"P-256","kid":"a","x":"` + b64(ec.X.FillBytes(make([]byte, 32))) + `","y":"` + b64(ec.Y.FillBytes(make([]byte, 32))) + `"`
	for name, members := range map[string]string{
		"unreadable x5c":        p256 + `,"x5c":["MAA="]`,
		"x5c is a string":       p256 + `,"x5c":"MAA="`,
		"x5t of something else": p256 + `,"x5t":"abc","x5t#S256":7`,
		"x5u":                   p256 + `,"x5u":"::"`,
		"unknown key_ops":       p256 + `,"key_ops":["verify","x-mine"]`,
		"odd key_ops":           p256 + `,"key_ops":{"verify":true}`,
		"null members":          p256 + `,"use":null,"alg":null,"key_ops":null,"d":null,"x5c":null`,
		"unknown members":       p256 + `,"exp":"never","nbf":{},"ext":true,"oth":1,"k":2`,
		"alg EdDSA":             okp + `,"alg":"EdDSA"`,
		"alg Ed25519":           okp + `,"alg":"Ed25519"`, // RFC 9864
	} {
		s := newKeyServer(t)
		s.set.Store(`{"keys":[{` + members + `}]}`)
		j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
		var token string
		if strings.HasPrefix(members, p256) {
			token = sign(t, jwt.SigningMethodES256, ec, "a", `{"sub":"ann","exp":9e9}`)
		} else {
			token = sign(t, jwt.SigningMethodEdDSA, ed, "a", `{"sub":"ann","exp":9e9}`)
		}
		if _, err := j.Authenticate(bearer(token)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A token may also use the name of the algorithm in RFC 9864.
	s := newKeyServer(t)
	s.set.Store(`{"keys":[{` + okp + `}]}`)
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	text := b64([]byte(`{"alg":"Ed25519","kid":"a"}`)) + "." + b64([]byte(`{"sub":"ann","exp":9e9}`))
	if _, err := j.Authenticate(bearer(text + "." + b64(ed25519.Sign(ed, []byte(text))))); err != nil {
		t.Errorf("a token with alg Ed25519: %v", err)
	}
	if _, err := j.Authenticate(bearer(text + "." + b64(make([]byte, 64)))); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("a forged token with alg Ed25519: %v, want ErrUnauthorized", err)
	}
}

func TestIgnoredJWKIsLoggedOnce(t *testing.T) {
	public, key, _ := ed25519.GenerateKey(rand.Reader)
	x := base64.RawURLEncoding.EncodeToString(public)
	set := func(more string) string {
		return fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"good","x":%q},
			{"kty":"OKP","crv":"Ed25519","kid":"for-encryption","use":"enc","x":%[1]q},
			{"kty":"OKP","crv":"Ed25519","kid":"private","x":%[1]q,"d":"hidden"},
			{"kty":"oct","kid":"symmetric","k":"hidden"},
			{"kty":"EC","crv":"P-256","kid":"broken","x":"AA","y":"AA"},
			{"kty":"OKP","crv":"Ed25519","kid":"wrong-alg","alg":"ES256","x":%[1]q}%s]}`, x, more)
	}
	s := newKeyServer(t)
	s.set.Store(set(""))
	var log bytes.Buffer
	j, err := auth.NewJWT(auth.JWTConfig{JWKSURLs: []string{s.URL}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := j.Authenticate(edToken(t, key, "good", "ann")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := j.Refetch(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	s.set.Store(set(`,{"kty":"new","kid":"later"}`))
	if _, err := j.Refetch(context.Background()); err != nil {
		t.Fatal(err)
	}
	j.Close()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	for kid, reason := range map[string]string{
		"for-encryption": "enc", "private": "private", "symmetric": "oct", "broken": "curve", "wrong-alg": "ES256", "later": "new",
	} {
		count := 0
		for _, line := range lines {
			if strings.Contains(line, "kid="+kid) && strings.Contains(line, "reason=") && strings.Contains(line, reason) {
				count++
			}
		}
		if count != 1 {
			t.Errorf("%d lines name the key %q with the reason %q, want 1 of:\n%s", count, kid, reason, &log)
		}
	}
	if len(lines) != 6 || strings.Contains(log.String(), "hidden") || strings.Contains(log.String(), "kid=good") {
		t.Errorf("logged:\n%s", &log)
	}
}

func TestNullTopicsAreAllTopics(t *testing.T) {
	j := newJWT(t, auth.JWTConfig{Secret: secret})
	id, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"ann","exp":9e9,"topics":null}`)))
	if err != nil || id.Topics != nil {
		t.Errorf("%+v, %v, want all topics", id, err)
	}
}
