package stream

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
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

// A provider is an identity provider, or a proxy, whose tokens the documented flags accept. Its claims and the form of its
// key set are those that it documents.
type provider struct {
	name, anchor string // in the table of docs/authentication.md
	flags        string // part of its documented command
	method       jwt.SigningMethod
	keys         string // what is special about the keys, for the table
	publish      func(providerKeys) any
	user         string
	claims       jwt.MapClaims // without those that the flags determine
	padded       bool          // base64 with padding
}

var providers = []provider{
	{"Auth0", "auth0", ".us.auth0.com/", jwt.SigningMethodRS256, "`x5t` of the hexadecimal thumbprint", providerKeys.hexThumbprint, "auth0|64f0c1",
		jwt.MapClaims{"aud": []string{"", "https://YOUR-TENANT.us.auth0.com/userinfo"}, "azp": "client", "scope": "openid", "https://app.example/plan": "pro"}, false},
	{"Keycloak", "keycloak", "/realms/", jwt.SigningMethodRS256, "also one for encryption", providerKeys.withEncryption, "0b0e3d4c-3b2f-4a27-9f1e-8a6c9a3d2e11",
		jwt.MapClaims{"aud": []string{"", "account"}, "typ": "Bearer", "azp": "YOUR-CLIENT", "realm_access": map[string]any{"roles": []string{"user"}}}, false},
	{"Cognito, ID token", "amazon-cognito", "--jwt-audience YOUR-CLIENT-ID", jwt.SigningMethodRS256, "two", providerKeys.two, "a1b2c3d4-1111-2222-3333-444455556666",
		jwt.MapClaims{"token_use": "id", "cognito:username": "ada"}, false},
	{"Cognito, access token", "amazon-cognito", "--jwt-authorized-party YOUR-CLIENT-ID", jwt.SigningMethodRS256, "two", providerKeys.two, "a1b2c3d4-1111-2222-3333-444455556666",
		jwt.MapClaims{"token_use": "access", "client_id": "", "username": "ada", "scope": "openid"}, false},
	{"Clerk", "clerk", "--jwt-authorized-party https://app.example", jwt.SigningMethodRS256, "one", providerKeys.one, "user_2a",
		jwt.MapClaims{"azp": "", "sid": "sess_2b", "v": 2, "fva": []int{0, -1}}, false},
	{"Clerk, template", "clerk", "--jwt-audience usercast", jwt.SigningMethodRS256, "one", providerKeys.one, "user_2a",
		jwt.MapClaims{"azp": "https://app.example"}, false},
	{"Supabase", "supabase", "supabase.co", jwt.SigningMethodES256, "`key_ops` and unknown members", providerKeys.withOperations, "4c1b6a1e-9d0a-4d4b-8f43-1f3c1d2e3f40",
		jwt.MapClaims{"role": "authenticated", "aal": "aal1", "is_anonymous": false, "app_metadata": map[string]any{"provider": "email"}}, false},
	{"Firebase, ID token", "firebase", "securetoken.google.com", jwt.SigningMethodRS256, "two", providerKeys.two, "Xy9",
		jwt.MapClaims{"user_id": "Xy9", "auth_time": 1e9, "firebase": map[string]any{"sign_in_provider": "password"}}, false},
	{"Firebase, session cookie", "firebase", "session.firebase.google.com", jwt.SigningMethodRS256, "certificates in PEM by `kid`", providerKeys.certificates, "Xy9",
		jwt.MapClaims{"user_id": "Xy9", "auth_time": 1e9}, false},
	{"WSO2", "wso2", "/oauth2/token", jwt.SigningMethodRS256, "`x5t` of the hexadecimal thumbprint", providerKeys.hexThumbprint, "ada",
		jwt.MapClaims{"azp": "YOUR-CLIENT-ID", "aut": "APPLICATION_USER", "scope": "openid"}, false},
	{"Cloudflare Access", "cloudflare-access", "cloudflareaccess.com", jwt.SigningMethodRS256, "`public_cert` next to `keys`", providerKeys.withCertificates, "7335d417-61da-459d-899c-0a01c76a2f94",
		jwt.MapClaims{"aud": []string{""}, "type": "app", "email": "ada@app.example", "country": "US", "identity_nonce": "n"}, false},
	{"Google IAP", "google-iap", "cloud.google.com/iap", jwt.SigningMethodES256, "two", providerKeys.two, "accounts.google.com:1084",
		jwt.MapClaims{"email": "ada@app.example", "hd": "app.example"}, false},
	{"AWS load balancer", "aws-load-balancer", "X-Amzn-Oidc-Data", jwt.SigningMethodES256, "a PEM file", nil, "a1b2c3d4-1111-2222-3333-444455556666",
		jwt.MapClaims{"email": "ada@app.example", "username": "ada"}, true},
}

// row returns the row of the table in docs/authentication.md. args are the documented flags.
func (p provider) row(args []string) string {
	where := "the cookie `usercast`"
	if header := flag(args, "--jwt-header"); header != "" {
		where = "the header `" + header + "`"
	} else if cookie := flag(args, "--jwt-cookie"); cookie != "" {
		where = "the cookie `" + cookie + "`"
	}
	return fmt.Sprintf("| [%s](#%s) | %s | %s | %s | `%s` |", p.name, p.anchor, p.method.Alg(), where, p.keys, strings.ReplaceAll(p.user, "|", `\|`))
}

// flag returns the value of a flag, or "".
func flag(args []string, name string) string {
	if i := slices.Index(args, name); i >= 0 {
		return args[i+1]
	}
	return ""
}

// TestIdentityProviders runs the hub with the documented flags for identity providers (docs/authentication.md), with
// tokens of their form and a key set in their format. The table there has a row for each of them.
func TestIdentityProviders(t *testing.T) {
	t.Parallel()
	keys := newProviderKeys(t)
	server := redistest.Start(t)
	file := filepath.Join(hubtest.Root(t), "docs/authentication.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var commands [][]string
	for _, b := range doctest.Read(t, file).Blocks {
		if b.Mark == "run by: TestIdentityProviders" {
			commands = append(commands, strings.Fields(strings.ReplaceAll(b.Text, "\\\n", ""))[2:])
		}
	}
	if len(commands) != len(providers) {
		t.Errorf("%s has commands for %d identity providers, want %d", file, len(commands), len(providers))
	}
	for _, p := range providers {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			i := slices.IndexFunc(commands, func(args []string) bool { return strings.Contains(strings.Join(args, " "), p.flags) })
			if i < 0 {
				t.Fatalf("%s does not have a command with %s", file, p.flags)
			}
			args := slices.Clone(commands[i])
			if row := p.row(args); !strings.Contains(string(page), row+"\n") {
				t.Errorf("%s: the table lacks this row:\n%s", file, row)
			}
			p.test(t, keys, server, args)
		})
	}
}

// test runs the hub with the flags of a provider, and sends it tokens of this provider and of others.
func (p provider) test(t *testing.T, keys providerKeys, server *redistest.Server, args []string) {
	issuer, audience, party := flag(args, "--jwt-issuer"), flag(args, "--jwt-audience"), flag(args, "--jwt-authorized-party")
	for i, arg := range args {
		switch arg {
		case "--jwt-jwks-url":
			set, err := json.Marshal(p.publish(keys))
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(set) }))
			t.Cleanup(s.Close)
			args[i+1] = s.URL
		case "--jwt-key-file":
			args[i+1] = hubtest.SecretFile(t, keys.publicPEM(t))
		}
	}
	h := hubtest.Start(t, server, args...)
	token := func(changes jwt.MapClaims) string {
		claims := jwt.MapClaims{"sub": p.user, "iss": issuer, "iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix()}
		if audience != "" {
			claims["aud"] = audience
		}
		maps.Copy(claims, p.claims)
		if list, ok := claims["aud"].([]string); ok {
			claims["aud"] = append([]string{audience}, list[1:]...)
		}
		for _, name := range []string{"azp", "client_id"} {
			if claims[name] == "" {
				claims[name] = party
			}
		}
		maps.Copy(claims, changes)
		return keys.sign(t, p, claims)
	}
	header := func(token string) string {
		if name := flag(args, "--jwt-header"); name != "" {
			return name + ": " + token
		}
		if name := flag(args, "--jwt-cookie"); name != "" {
			return "Cookie: " + name + "=" + token
		}
		return "Cookie: usercast=" + token
	}
	page := h.Open(t, "", header(token(nil)))
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-"+p.user, "hello")
	page.Want(t, "hello")

	refused := map[string]jwt.MapClaims{"another tenant": {"iss": issuer + "-2"}, "no issuer": {"iss": nil}, "an old token": {"exp": time.Now().Add(-time.Hour).Unix()}}
	if audience != "" {
		refused["another audience"] = jwt.MapClaims{"aud": "another"}
		refused["no audience"] = jwt.MapClaims{"aud": nil}
	}
	if party != "" {
		refused["another party"] = jwt.MapClaims{"azp": "another"}
		refused["no party"] = jwt.MapClaims{"azp": nil, "client_id": nil}
	}
	if audience == "" && party == "" && p.padded == false {
		t.Error("the flags accept tokens for other apps")
	}
	send := func(token string) int {
		return hubtest.Request(t, "GET", h.PublicURL("/events"), "Accept: text/event-stream", header(token)).Status
	}
	for name, changes := range refused {
		if status := send(token(changes)); status != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", name, status)
		}
	}
	signed := token(nil)
	i := strings.LastIndexByte(signed, '.') + 10
	if status := send(signed[:i] + string('A'+('Z'-signed[i])%26) + signed[i+1:]); status != http.StatusUnauthorized {
		t.Errorf("a changed signature: %d, want 401", status)
	}
	separator := cmp.Or(flag(args, "--topic-separator"), ":")
	if status := send(token(jwt.MapClaims{"sub": "f" + separator + "42"})); status != http.StatusForbidden {
		t.Errorf("a user id with the separator: %d, want 403", status)
	}
}

// providerKeys are the keys of all providers.
type providerKeys struct {
	rsa  *rsa.PrivateKey
	ec   *ecdsa.PrivateKey
	cert []byte // of rsa, in DER
}

func newProviderKeys(t *testing.T) (k providerKeys) {
	t.Helper()
	var err error
	if k.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if k.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	if k.cert, err = x509.CreateCertificate(rand.Reader, template, template, k.rsa.Public(), k.rsa); err != nil {
		t.Fatal(err)
	}
	return k
}

// sign returns a token of a provider.
func (k providerKeys) sign(t *testing.T, p provider, claims jwt.MapClaims) string {
	t.Helper()
	encoding := base64.RawURLEncoding
	if p.padded {
		encoding = base64.URLEncoding
	}
	var key crypto.PrivateKey = k.rsa
	header := map[string]any{"alg": p.method.Alg(), "typ": "JWT", "kid": "rsa"}
	if p.method == jwt.SigningMethodES256 {
		key, header["kid"] = k.ec, "ec"
	}
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return encoding.EncodeToString(text)
	}
	text := part(header) + "." + part(claims)
	signature, err := p.method.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + encoding.EncodeToString(signature)
}

// jwks returns the keys as JWKs, with more members for the RSA key and for the EC key.
func (k providerKeys) jwks(ofRSA, ofEC map[string]any) []any {
	text := base64.RawURLEncoding.EncodeToString
	r := map[string]any{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa", "n": text(k.rsa.N.Bytes()), "e": "AQAB"}
	e := map[string]any{"kty": "EC", "use": "sig", "alg": "ES256", "kid": "ec", "crv": "P-256",
		"x": text(k.ec.X.FillBytes(make([]byte, 32))), "y": text(k.ec.Y.FillBytes(make([]byte, 32)))}
	maps.Copy(r, ofRSA)
	maps.Copy(e, ofEC)
	return []any{r, e}
}

func (k providerKeys) one() any { return map[string]any{"keys": k.jwks(nil, nil)[:1]} }
func (k providerKeys) two() any { return map[string]any{"keys": k.jwks(nil, nil)} }

func (k providerKeys) hexThumbprint() any {
	sum := sha1.Sum(k.cert)
	thumbprint := base64.RawURLEncoding.EncodeToString([]byte(strings.ToUpper(hex.EncodeToString(sum[:]))))
	return map[string]any{"keys": k.jwks(map[string]any{"x5t": thumbprint, "x5c": []string{base64.StdEncoding.EncodeToString(k.cert)}}, nil)[:1]}
}

func (k providerKeys) withEncryption() any {
	forEncryption := k.jwks(map[string]any{"use": "enc", "alg": "RSA-OAEP", "kid": "enc"}, nil)[0]
	return map[string]any{"keys": []any{forEncryption, k.jwks(nil, nil)[0]}}
}

func (k providerKeys) withOperations() any {
	return map[string]any{"keys": k.jwks(nil, map[string]any{"key_ops": []string{"verify"}, "ext": true})[1:]}
}

func (k providerKeys) certPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.cert}))
}

func (k providerKeys) certificates() any { return map[string]string{"rsa": k.certPEM()} }

func (k providerKeys) withCertificates() any {
	cert := map[string]string{"kid": "rsa", "cert": k.certPEM()}
	return map[string]any{"keys": k.jwks(nil, nil)[:1], "public_cert": cert, "public_certs": []any{cert}}
}

// publicPEM returns the public EC key.
func (k providerKeys) publicPEM(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
