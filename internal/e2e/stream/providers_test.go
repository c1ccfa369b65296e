package stream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"usercast/internal/doctest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// providerTokens are the claims that identity providers document, except those that the flags determine. The user is
// the one that the hub must authenticate.
var providerTokens = []struct {
	issuer string // part of --jwt-issuer
	method jwt.SigningMethod
	user   string
	aud    []string // in addition to --jwt-audience
	claims jwt.MapClaims
}{
	{"auth0", jwt.SigningMethodRS256, "auth0|64f0c1", []string{"https://YOUR-TENANT.us.auth0.com/userinfo"}, jwt.MapClaims{"azp": "client", "scope": "openid"}},
	{"/realms/", jwt.SigningMethodRS256, "0b0e3d4c-3b2f-4a27-9f1e-8a6c9a3d2e11", []string{"account"}, jwt.MapClaims{"typ": "Bearer", "azp": "YOUR-CLIENT",
		"realm_access": map[string]any{"roles": []string{"user"}}}},
	{"cognito", jwt.SigningMethodRS256, "a1b2c3d4-1111-2222-3333-444455556666", nil, jwt.MapClaims{"token_use": "id", "cognito:username": "ada"}},
	{"clerk", jwt.SigningMethodRS256, "user_2a", nil, jwt.MapClaims{"azp": "https://app.example"}},
	{"supabase", jwt.SigningMethodES256, "4c1b6a1e-9d0a-4d4b-8f43-1f3c1d2e3f40", nil, jwt.MapClaims{"role": "authenticated", "is_anonymous": false}},
	{"securetoken", jwt.SigningMethodRS256, "Xy9", nil, jwt.MapClaims{"user_id": "Xy9", "firebase": map[string]any{"sign_in_provider": "password"}}},
}

// TestIdentityProviders runs the hub with the documented flags for identity providers (docs/authentication.md), with
// tokens of their form and a key set in their format.
func TestIdentityProviders(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(keySet(rsaKey, ecKey)) }))
	t.Cleanup(keys.Close)
	server := redistest.Start(t)
	publisher := hubtest.NewPublisher(t, server.Addr())

	tested := 0
	for _, b := range doctest.Read(t, filepath.Join(hubtest.Root(t), "docs/authentication.md")).Blocks {
		if b.Mark != "run by: TestIdentityProviders" {
			continue
		}
		args := strings.Fields(strings.ReplaceAll(b.Text, "\\\n", ""))[2:]
		at := func(flag string) int { return slices.Index(args, flag) + 1 }
		issuer, audience := args[at("--jwt-issuer")], args[at("--jwt-audience")]
		args[at("--jwt-jwks-url")] = keys.URL
		h := hubtest.Start(t, server, args...)
		for _, test := range providerTokens {
			if !strings.Contains(issuer, test.issuer) {
				continue
			}
			tested++
			status := func(changes jwt.MapClaims) int {
				claims := jwt.MapClaims{"sub": test.user, "iss": issuer, "iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix()}
				claims["aud"] = append([]string{audience}, test.aud...)
				if test.aud == nil {
					claims["aud"] = audience
				}
				for _, more := range []jwt.MapClaims{test.claims, changes} {
					for name, value := range more {
						claims[name] = value
					}
				}
				token := jwt.NewWithClaims(test.method, claims)
				var key any = rsaKey
				if token.Header["kid"] = "rsa"; test.method == jwt.SigningMethodES256 {
					token.Header["kid"], key = "ec", ecKey
				}
				signed, err := token.SignedString(key)
				if err != nil {
					t.Fatal(err)
				}
				if changes == nil {
					page := h.Open(t, "", "Cookie: usercast="+signed)
					publisher.Publish(t, "user-"+test.user, "hello")
					page.Want(t, "hello")
					return http.StatusOK
				}
				return hubtest.Request(t, "GET", h.PublicURL("/events"), "Accept: text/event-stream", "Cookie: usercast="+signed).Status
			}
			status(nil)
			if got := status(jwt.MapClaims{"aud": "another"}); got != http.StatusUnauthorized {
				t.Errorf("%s: a token for another audience: %d, want 401", issuer, got)
			}
			if got := status(jwt.MapClaims{"iss": "https://other.example"}); got != http.StatusUnauthorized {
				t.Errorf("%s: a token of another issuer: %d, want 401", issuer, got)
			}
			if got := status(jwt.MapClaims{"sub": "f:component:42"}); got != http.StatusForbidden {
				t.Errorf("%s: a user id with a colon: %d, want 403", issuer, got)
			}
		}
	}
	if tested != len(providerTokens) {
		t.Errorf("docs/authentication.md shows %d identity providers of %d", tested, len(providerTokens))
	}
}

// keySet returns a JWK set that also has an encryption key, as Keycloak publishes.
func keySet(rsaKey *rsa.PrivateKey, ecKey *ecdsa.PrivateKey) []byte {
	text := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	padded := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.FillBytes(make([]byte, 32))) }
	n, e := text(rsaKey.N), text(big.NewInt(int64(rsaKey.E)))
	set, err := json.Marshal(map[string]any{"keys": []map[string]any{
		{"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "enc", "n": n, "e": e},
		{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa", "n": n, "e": e},
		{"kty": "EC", "use": "sig", "alg": "ES256", "kid": "ec", "crv": "P-256", "x": padded(ecKey.X), "y": padded(ecKey.Y)},
	}})
	if err != nil {
		panic(err)
	}
	return set
}
