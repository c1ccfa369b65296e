package auth_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"usercast/auth"
)

// BenchmarkJWT authenticates one request: the cost of --auth jwt per connect.
func BenchmarkJWT(b *testing.B) {
	const payload = `{"iss":"https://login.example","sub":"ann","aud":["us"],"iat":1e9,"exp":9e9,"scope":"openid profile email"}`
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":%q}]}`, base64.RawURLEncoding.EncodeToString(pub))
	}))
	defer s.Close()
	for _, c := range []struct {
		name, token string
		cfg         auth.JWTConfig
	}{
		{"secret", sign(b, jwt.SigningMethodHS256, secret, "", payload), auth.JWTConfig{Secret: secret}},
		{"key set", sign(b, jwt.SigningMethodEdDSA, key, "a", payload), auth.JWTConfig{JWKSURLs: []string{s.URL}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			j := newJWT(b, c.cfg)
			r := httptest.NewRequest("GET", "/events", nil)
			r.Header.Set("Cookie", "session=x; usercast="+c.token)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := j.Authenticate(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
