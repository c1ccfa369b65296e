package auth_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"usercast/auth"
)

func TestSetKeysAppliesToLaterTokens(t *testing.T) {
	other := []byte(strings.Repeat("another ", 4))
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	der, _ := x509.MarshalPKIXPublicKey(public)
	keyPEM := pemOf("PUBLIC KEY", der)
	const payload = `{"sub":"ann","exp":9e9}`
	j := newJWT(t, auth.JWTConfig{Secret: secret})
	accepts := func(step string, want ...[]byte) {
		t.Helper()
		for _, key := range [][]byte{secret, other} {
			_, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodHS256, key, "", payload)))
			wanted := false
			for _, w := range want {
				wanted = wanted || string(w) == string(key)
			}
			if (err == nil) != wanted || err != nil && !errors.Is(err, auth.ErrUnauthorized) {
				t.Errorf("%s: a token signed with %q: %v", step, key, err)
			}
		}
	}
	accepts("at first", secret)
	for name, keys := range map[string]auth.JWTKeys{
		"nothing":          {},
		"a public key":     {KeyPEM: keyPEM},
		"both kinds":       {Secret: other, KeyPEM: keyPEM},
		"a key as secret":  {Secret: keyPEM},
		"an empty second":  {Secret: other, OtherSecrets: [][]byte{{}}},
		"a key as a third": {Secret: other, OtherSecrets: [][]byte{secret, keyPEM}},
	} {
		if j.SetKeys(keys) == nil {
			t.Errorf("%s is accepted", name)
		}
		accepts("after "+name, secret)
	}
	for _, step := range []struct {
		name string
		keys auth.JWTKeys
		want [][]byte
	}{
		{"both", auth.JWTKeys{Secret: other, OtherSecrets: [][]byte{secret}}, [][]byte{other, secret}},
		{"the new one", auth.JWTKeys{Secret: other}, [][]byte{other}},
	} {
		if err := j.SetKeys(step.keys); err != nil {
			t.Fatal(err)
		}
		accepts(step.name, step.want...)
	}

	j = newJWT(t, auth.JWTConfig{KeyPEM: keyPEM})
	for _, keys := range []auth.JWTKeys{{KeyPEM: keyPEM[:40]}, {Secret: secret}, {}} {
		if j.SetKeys(keys) == nil {
			t.Errorf("%q is accepted as public keys", keys)
		}
	}
	if _, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodEdDSA, private, "", payload))); err != nil {
		t.Error(err)
	}
}

// The response to a fetch in flight may be older than the change because of which Refetch is called.
func TestRefetchDoesNotRelyOnAnOlderFetch(t *testing.T) {
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	var kid atomic.Value
	kid.Store("first")
	var held atomic.Bool
	entered, leave := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := kid.Load()
		if held.CompareAndSwap(true, false) {
			close(entered)
			<-leave
		}
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}]}`, now, base64.RawURLEncoding.EncodeToString(public))
	}))
	defer s.Close()
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	ask := func(kid string) error {
		_, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodEdDSA, private, kid, `{"sub":"ann","exp":9e9}`)))
		return err
	}
	if err := ask("first"); err != nil {
		t.Fatal(err)
	}
	held.Store(true)
	called := make(chan struct{})
	go func() {
		defer close(called)
		_ = ask("unknown")
	}()
	<-entered
	kid.Store("second")
	refetched := make(chan bool)
	go func() {
		changed, err := j.Refetch(context.Background())
		refetched <- changed && err == nil
	}()
	close(leave)
	if !<-refetched {
		t.Error("it returned after the older fetch")
	}
	<-called
}

func TestRefetch(t *testing.T) {
	public, private, _ := ed25519.GenerateKey(rand.Reader)
	var kid atomic.Value
	kid.Store("first")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if kid.Load() == "" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}]}`, kid.Load(), base64.RawURLEncoding.EncodeToString(public))
	}))
	defer s.Close()
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	accepts := func(kid string) bool {
		_, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodEdDSA, private, kid, `{"sub":"ann","exp":9e9}`)))
		return err == nil
	}
	if !accepts("first") {
		t.Fatal("the first key is not accepted")
	}
	if changed, err := j.Refetch(context.Background()); changed || err != nil {
		t.Errorf("the same set: %v, %v", changed, err)
	}
	kid.Store("second")
	if changed, err := j.Refetch(context.Background()); !changed || err != nil {
		t.Errorf("another set: %v, %v", changed, err)
	}
	// Verify the known key first: a token with an unknown key would cause another fetch.
	if accepts("first") || !accepts("second") {
		t.Error("the second set is not in use")
	}
	kid.Store("")
	if changed, err := j.Refetch(context.Background()); changed || err == nil || !accepts("second") {
		t.Errorf("a set that cannot be fetched: %v, %v", changed, err)
	}
	if j.SetKeys(auth.JWTKeys{Secret: secret}) == nil {
		t.Error("a secret is accepted in addition to a set")
	}
	j.Close()
	if _, err := j.Refetch(context.Background()); err == nil {
		t.Error("fetched after Close")
	}
}
