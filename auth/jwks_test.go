package auth_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"usercast/auth"
)

// The response to a fetch in flight may be older than the key.
func TestJWKSKeyThatIsPublishedDuringAFetch(t *testing.T) {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	var fetches atomic.Int32
	first, release := make(chan bool), make(chan bool)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kid := "old"
		if fetches.Add(1) == 1 {
			close(first)
			<-release
		} else {
			kid = "new"
		}
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}]}`, kid, base64.RawURLEncoding.EncodeToString(pub))
	}))
	defer s.Close()
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	<-first
	answered := make(chan error)
	go func() {
		_, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodEdDSA, key, "new", `{"sub":"ann","exp":9e9}`)))
		answered <- err
	}()
	release <- true
	if err := <-answered; err != nil {
		t.Error(err)
	}

	// A missing key is remembered for a while.
	unknown := bearer(sign(t, jwt.SigningMethodEdDSA, key, "nowhere", `{"sub":"ann","exp":9e9}`))
	for i := range 10 {
		if _, err := j.Authenticate(unknown); !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("time %d: %v, want a no", i, err)
		}
	}
	if n := fetches.Load(); n != 3 {
		t.Errorf("%d fetches, want 3", n)
	}
}

// An unusable set is treated as a failed fetch, and the password in its URL does not occur in the log.
func TestJWKSUnusableSet(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	for name, answer := range map[string]http.HandlerFunc{
		"no JSON":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"an empty set": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) },
		"a secret":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`) },
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":%q}]}`, base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
			fmt.Fprint(w, strings.Repeat(" ", 1<<20))
		},
		"private": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":%q,"d":%q}]}`,
				base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)), base64.RawURLEncoding.EncodeToString(key.Seed()))
		},
		"a server error": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"for encryption": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","use":"enc","x":%q}]}`, base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
		},
		"for another algorithm": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"HS256","x":%q}]}`, base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(answer)
			defer s.Close()
			var log bytes.Buffer
			j, err := auth.NewJWT(auth.JWTConfig{
				JWKSURLs: []string{strings.Replace(s.URL, "://", "://hub:s3cret@", 1) + "/?key=s3cret"}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = j.Authenticate(bearer(sign(t, jwt.SigningMethodEdDSA, key, "a", `{"sub":"ann","exp":9e9}`)))
			if err == nil || isPermanent(err) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v, want a temporary error", err)
			}
			j.Close()
			if strings.Count(log.String(), "level=WARN") != 1 || strings.Contains(log.String(), "s3cret") {
				t.Errorf("logged: %s", log.String())
			}
		})
	}
}

// Anyone could sign tokens with a public key as the secret, or guess a short secret.
func TestJWTSecretMustBeSecret(t *testing.T) {
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := auth.NewJWT(auth.JWTConfig{Secret: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}); err == nil {
		t.Error("a public key is accepted as a secret")
	}
	for n, ok := range map[int]bool{1: false, 31: false, 32: true} {
		short := secret[:n]
		for name, cfg := range map[string]auth.JWTConfig{"secret": {Secret: short}, "other secret": {Secret: secret, OtherSecrets: [][]byte{short}}} {
			_, err := auth.NewJWT(cfg)
			if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "openssl rand") {
				t.Errorf("%s of %d bytes: %v", name, n, err)
			}
		}
	}
}

// The topics claim must contain only text.
func TestJWTTopicsAreText(t *testing.T) {
	j := newJWT(t, auth.JWTConfig{Secret: secret})
	for topics, ok := range map[string]bool{`["a","b:c",""]`: true, `[]`: true, `["a\n"]`: false, `["\u0000"]`: false, `["\ufffd"]`: false, `[1]`: false, `"a"`: false, `null`: true} {
		_, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"ann","exp":9e9,"topics":`+topics+`}`)))
		if (err == nil) != ok || err != nil && !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("%s: %v", topics, err)
		}
	}
}

// The alg member of a key in a set restricts its use.
func TestJWKAlgorithm(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"keys":[{"kty":"RSA","kid":"a","alg":"RS256","use":"sig","e":"AQAB","n":%q},{"kty":"RSA","kid":"b","e":"AQAB","n":%[1]q}]}`,
			base64.RawURLEncoding.EncodeToString(key.N.Bytes()))
	}))
	defer s.Close()
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	for _, test := range []struct {
		method jwt.SigningMethod
		kid    string
		ok     bool
	}{
		{jwt.SigningMethodRS256, "a", true}, {jwt.SigningMethodRS512, "a", false}, {jwt.SigningMethodPS256, "a", false},
		{jwt.SigningMethodRS512, "b", true}, {jwt.SigningMethodPS256, "b", true},
		{jwt.SigningMethodRS512, "", true}, // only b fits
		{jwt.SigningMethodRS256, "", true}, // both fit
	} {
		_, err := j.Authenticate(bearer(sign(t, test.method, key, test.kid, `{"sub":"ann","exp":9e9}`)))
		if (err == nil) != test.ok || err != nil && !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("%s by key %q: %v", test.method.Alg(), test.kid, err)
		}
	}
}
