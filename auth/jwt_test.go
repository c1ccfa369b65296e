package auth_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"usercast/auth"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

func sign(t testing.TB, m jwt.SigningMethod, key any, kid, payload string) string {
	t.Helper()
	header := fmt.Sprintf(`{"alg":%q,"jku":"http://127.0.0.1:1/","jwk":{}}`, m.Alg())
	if kid != "" {
		header = fmt.Sprintf(`{"alg":%q,"kid":%q}`, m.Alg(), kid)
	}
	b64 := base64.RawURLEncoding
	text := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(payload))
	sig, err := m.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64.EncodeToString(sig)
}

func bearer(token string) *http.Request {
	r := httptest.NewRequest("GET", "/events", nil)
	r.Header.Set("Authorization", "bearer "+token)
	return r
}

func newJWT(t testing.TB, cfg auth.JWTConfig) *auth.JWT {
	t.Helper()
	j, err := auth.NewJWT(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

func TestJWTClaims(t *testing.T) {
	j := newJWT(t, auth.JWTConfig{Secret: secret, Issuers: []string{"me"}, Audiences: []string{"us"}})
	now := time.Now().Unix()
	ok := fmt.Sprintf(`"iss":"me","aud":["x","us"],"exp":%d`, now+60)
	tests := []struct {
		payload, user string
		err           error
	}{
		{`{"sub":"ann",` + ok + `}`, "ann", nil},
		{`{"sub":9007199254740993,` + ok + `}`, "9007199254740993", nil},
		{`{"sub":"*",` + ok + `}`, "*", nil},
		{`{"sub":"",` + ok + `}`, "", auth.ErrBadUser},
		{`{"sub":"a\n",` + ok + `}`, "", auth.ErrBadUser},
		{`{"sub":1e3,` + ok + `}`, "", auth.ErrUnauthorized},
		{`{"sub":1.5,` + ok + `}`, "", auth.ErrUnauthorized},
		{`{"sub":null,` + ok + `}`, "", auth.ErrUnauthorized},
		{`{` + ok + `}`, "", auth.ErrUnauthorized},
		{`{"sub":"a","topics":"x",` + ok + `}`, "", auth.ErrUnauthorized},
		{`{"sub":"a","topics":[1],` + ok + `}`, "", auth.ErrUnauthorized},
		{`{"sub":"a","topics":null,"nbf":null,"iat":null,` + ok + `}`, "a", nil},
		{`{"sub":"a","iss":"me","aud":"us","exp":null}`, "", auth.ErrUnauthorized},
		{`{"sub":"a","iss":"me","aud":"us"}`, "", auth.ErrUnauthorized},
		{`{"sub":"a","iss":"you","aud":"us","exp":9e99}`, "", auth.ErrUnauthorized},
		{`{"sub":"a","iss":"me","aud":"them","exp":9e99}`, "", auth.ErrUnauthorized},
		{`{"sub":"a","iss":"me","aud":"us","exp":9e99}`, "a", nil},
		{`{"sub":"a","iss":"me","aud":"us","exp":-9e99}`, "", auth.ErrUnauthorized},
		{`{"sub":"a","iss":"me","aud":"us","exp":9e999}`, "", auth.ErrUnauthorized},
		{`{"sub":"a","iss":"me","aud":"us","exp":"1"}`, "", auth.ErrUnauthorized},
		{fmt.Sprintf(`{"sub":"a","iss":"me","aud":"us","exp":%d}`, now-20), "a", nil},
		{fmt.Sprintf(`{"sub":"a","iss":"me","aud":"us","exp":%d}`, now-31), "", auth.ErrExpired},
		{fmt.Sprintf(`{"sub":"a","nbf":%d,%s}`, now+90, ok), "", auth.ErrExpired},
		{`null`, "", auth.ErrUnauthorized},
	}
	for _, test := range tests {
		id, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodHS256, secret, "", test.payload)))
		if id.User != test.user || !errors.Is(err, test.err) {
			t.Errorf("%s: user %q, %v; want %q, %v", test.payload, id.User, err, test.user, test.err)
		}
	}
	id, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"a","topics":[],`+ok+`}`)))
	if err != nil || id.Topics == nil || id.Expires != time.Unix(now+60, 0).Add(auth.Skew) {
		t.Errorf("no topics: %+v, %v", id, err)
	}
	id, err = j.Authenticate(bearer(sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"a","topics":["b","a","b","",""],`+ok+`}`)))
	if err != nil || !slices.Equal(id.Topics, []string{"b", "a", ""}) {
		t.Errorf("topics named several times: %+v, %v", id, err)
	}
}

func TestJWTAlgorithmIsPinned(t *testing.T) {
	rs, _ := rsa.GenerateKey(rand.Reader, 2048)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	public := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	const payload = `{"sub":"ann","exp":9e9}`
	rsPEM := public(rs.Public())
	configs := map[string]auth.JWTConfig{"hs": {Secret: secret}, "rs": {KeyPEM: rsPEM}, "es": {KeyPEM: public(ec.Public())}, "ed": {KeyPEM: public(ed.Public())}}
	tokens := []struct{ of, token string }{
		{"hs", sign(t, jwt.SigningMethodHS384, secret, "", payload)},
		{"rs", sign(t, jwt.SigningMethodRS256, rs, "", payload)},
		{"rs", sign(t, jwt.SigningMethodPS512, rs, "../../dev/null", payload)},
		{"es", sign(t, jwt.SigningMethodES256, ec, "", payload)},
		{"ed", sign(t, jwt.SigningMethodEdDSA, ed, "", payload)},
		{"", sign(t, jwt.SigningMethodHS256, rsPEM, "", payload)},
		{"", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", payload)},
		{"", "a.b.c.d"}, {"", ""}, {"", strings.Repeat("a", 1<<15)},
	}
	for name, cfg := range configs {
		j := newJWT(t, cfg)
		for i, test := range tokens {
			_, err := j.Authenticate(bearer(test.token))
			if (err == nil) != (test.of == name) || err != nil && !errors.Is(err, auth.ErrUnauthorized) {
				t.Errorf("token %d with %s: %v", i, name, err)
			}
		}
	}
	der, _ := x509.MarshalPKCS8PrivateKey(rs)
	if _, err := auth.NewJWT(auth.JWTConfig{KeyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}); err == nil || !strings.Contains(err.Error(), "private") {
		t.Errorf("a private key: %v", err)
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Every documented algorithm works, with keys in all supported formats.
func TestJWTEveryAlgorithm(t *testing.T) {
	ec := make(map[jwt.SigningMethod]*ecdsa.PrivateKey)
	for method, curve := range map[jwt.SigningMethod]elliptic.Curve{
		jwt.SigningMethodES256: elliptic.P256(), jwt.SigningMethodES384: elliptic.P384(), jwt.SigningMethodES512: elliptic.P521(),
	} {
		ec[method], _ = ecdsa.GenerateKey(curve, rand.Reader)
	}
	rs, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, rs.Public(), rs)
	if err != nil {
		t.Fatal(err)
	}
	pkix := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pemOf("PUBLIC KEY", der)
	}
	ofRSA := [][]byte{pkix(rs.Public()), pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rs.PublicKey)), pemOf("CERTIFICATE", cert)}
	all := bytes.Join([][]byte{ofRSA[0], pkix(ed.Public()), pkix(ec[jwt.SigningMethodES256].Public()),
		pkix(ec[jwt.SigningMethodES384].Public()), pkix(ec[jwt.SigningMethodES512].Public())}, nil)
	works := func(j *auth.JWT, method jwt.SigningMethod, key any) {
		t.Helper()
		if id, err := j.Authenticate(bearer(sign(t, method, key, "", `{"sub":"ann","exp":9e9}`))); err != nil || id.User != "ann" {
			t.Errorf("%s: %+v, %v", method.Alg(), id, err)
		}
	}
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
		works(newJWT(t, auth.JWTConfig{Secret: secret}), method, secret)
	}
	for _, file := range append(ofRSA, all) {
		for _, method := range []jwt.SigningMethod{jwt.SigningMethodRS256, jwt.SigningMethodRS384, jwt.SigningMethodRS512,
			jwt.SigningMethodPS256, jwt.SigningMethodPS384, jwt.SigningMethodPS512} {
			works(newJWT(t, auth.JWTConfig{KeyPEM: file}), method, rs)
		}
	}
	for method, key := range ec {
		works(newJWT(t, auth.JWTConfig{KeyPEM: pkix(key.Public())}), method, key)
		works(newJWT(t, auth.JWTConfig{KeyPEM: all}), method, key)
	}
	works(newJWT(t, auth.JWTConfig{KeyPEM: all}), jwt.SigningMethodEdDSA, ed)

	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{
		"a short key": pkix(short.Public()), "nothing": {}, "no PEM": []byte("ssh-ed25519 AAAA"), "too many": bytes.Repeat(ofRSA[0], 9),
		"another thing": pemOf("X509 CRL", nil), "a broken key": pemOf("PUBLIC KEY", []byte("x")), "a private key": pemOf("RSA PRIVATE KEY", nil),
	} {
		if _, err := auth.NewJWT(auth.JWTConfig{KeyPEM: file}); err == nil {
			t.Errorf("%s is accepted as a key", name)
		}
	}
}

// Header fields of a token are not trusted, and unknown critical ones are rejected.
func TestJWTHeaderIsNotTrusted(t *testing.T) {
	j := newJWT(t, auth.JWTConfig{Secret: secret})
	b64 := base64.RawURLEncoding
	forge := func(header string) string {
		text := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(`{"sub":"ann","exp":9e9}`))
		sig, err := jwt.SigningMethodHS256.Sign(text, secret)
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + b64.EncodeToString(sig)
	}
	for header, ok := range map[string]bool{
		`{"alg":"HS256"}`: true,
		`{"alg":"HS256","typ":"at+jwt","x5u":"http://127.0.0.1:1/","jku":"http://127.0.0.1:1/","jwk":{},"kid":"../../etc/passwd"}`: true,
		`{"alg":"HS256","crit":["exp"],"exp":1}`: false,
		`{"alg":"HS256","crit":[]}`:              false,
		`{"alg":"hs256"}`:                        false,
		`{"alg":"none"}`:                         false,
		`{"alg":"None"}`:                         false,
		`{"alg":"nOnE"}`:                         false,
		`{"alg":""}`:                             false,
		`{"alg":1}`:                              false,
		`{}`:                                     false,
		`null`:                                   false,
	} {
		if _, err := j.Authenticate(bearer(forge(header))); (err == nil) != ok || err != nil && !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("%s: %v", header, err)
		}
	}
	good := forge(`{"alg":"HS256"}`)
	for name, token := range map[string]string{
		"without its signature": good[:strings.LastIndexByte(good, '.')+1], "with half of it": good[:len(good)-20], "with more": good + "AAAA",
		"with wrong padding": good + "==", "in two parts": good[:strings.LastIndexByte(good, '.')], "in four": good + ".x",
	} {
		if _, err := j.Authenticate(bearer(token)); !errors.Is(err, auth.ErrUnauthorized) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A token that is too long is not parsed.
	long := sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"ann","exp":9e9,"more":"`+strings.Repeat("x", 20<<10)+`"}`)
	if _, err := j.Authenticate(bearer(long)); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("a long token: %v", err)
	}
}

func TestJWTOptions(t *testing.T) {
	token := func(payload string) string { return sign(t, jwt.SigningMethodHS256, secret, "", payload) }
	later := fmt.Sprint(time.Now().Add(time.Hour).Unix())
	for _, test := range []struct {
		name    string
		cfg     auth.JWTConfig
		payload string
		want    string // user; empty: rejected
	}{
		{"another claim", auth.JWTConfig{UserClaim: "uid"}, `{"uid":42,"sub":"ann","exp":9e9}`, "42"},
		{"another claim that is missing", auth.JWTConfig{UserClaim: "uid"}, `{"sub":"ann","exp":9e9}`, ""},
		{"no expiry", auth.JWTConfig{}, `{"sub":"ann"}`, ""},
		{"no expiry, allowed", auth.JWTConfig{AllowNoExpiry: true}, `{"sub":"ann"}`, "ann"},
		{"expired, although no expiry is allowed", auth.JWTConfig{AllowNoExpiry: true}, `{"sub":"ann","exp":1}`, ""},
		{"issued in the future", auth.JWTConfig{}, `{"sub":"ann","exp":9e9,"iat":` + later + `}`, "ann"}, // the hub's clock may be slow
		{"issued at no time", auth.JWTConfig{}, `{"sub":"ann","exp":9e9,"iat":"today"}`, "ann"},
		{"a claim in a claim", auth.JWTConfig{UserClaim: "app.user.id"}, `{"app":{"user":{"id":9007199254740993}},"exp":9e9}`, "9007199254740993"},
		{"a claim with dots", auth.JWTConfig{UserClaim: "https://app.example/user"}, `{"https://app.example/user":"ann","exp":9e9}`, "ann"},
		{"a claim in a claim with dots", auth.JWTConfig{UserClaim: "https://app.example/user.id"}, `{"https://app.example/user":{"id":"ann"},"exp":9e9}`, "ann"},
		{"a literal name first", auth.JWTConfig{UserClaim: "a.b"}, `{"a":{"b":"bob"},"a.b":"ann","exp":9e9}`, "ann"},
		{"the longest name first", auth.JWTConfig{UserClaim: "a.b.c"}, `{"a":{"b":{"c":"bob"}},"a.b":{"c":"ann"},"exp":9e9}`, "ann"},
		{"a literal name with null", auth.JWTConfig{UserClaim: "a.b"}, `{"a":{"b":"ann"},"a.b":null,"exp":9e9}`, "ann"},
		{"a claim in a text", auth.JWTConfig{UserClaim: "a.b"}, `{"a":"b","exp":9e9}`, ""},
		{"a claim in a list", auth.JWTConfig{UserClaim: "a.0"}, `{"a":["ann"],"exp":9e9}`, ""},
		{"an object", auth.JWTConfig{UserClaim: "a"}, `{"a":{"b":"ann"},"exp":9e9}`, ""},
		{"only dots", auth.JWTConfig{UserClaim: "..."}, `{"":{"":{"":{"":"ann"}}},"exp":9e9}`, "ann"},
		{"one of several issuers", auth.JWTConfig{Issuers: []string{"me", "you"}}, `{"iss":"you","sub":"ann","exp":9e9}`, "ann"},
		{"none of several issuers", auth.JWTConfig{Issuers: []string{"me", "you"}}, `{"iss":"yo","sub":"ann","exp":9e9}`, ""},
		{"no issuer", auth.JWTConfig{Issuers: []string{"me"}}, `{"sub":"ann","exp":9e9}`, ""},
		{"a list of issuers", auth.JWTConfig{Issuers: []string{"me"}}, `{"iss":["me"],"sub":"ann","exp":9e9}`, ""},
		{"one of several audiences", auth.JWTConfig{Audiences: []string{"a", "b"}}, `{"aud":["x","b"],"sub":"ann","exp":9e9}`, "ann"},
		{"one audience of several", auth.JWTConfig{Audiences: []string{"a", "b"}}, `{"aud":"b","sub":"ann","exp":9e9}`, "ann"},
		{"none of several audiences", auth.JWTConfig{Audiences: []string{"a", "b"}}, `{"aud":["x",1,null],"sub":"ann","exp":9e9}`, ""},
		{"an empty list of audiences", auth.JWTConfig{Audiences: []string{"a"}}, `{"aud":[],"sub":"ann","exp":9e9}`, ""},
		{"no audience", auth.JWTConfig{Audiences: []string{"a"}}, `{"client_id":"a","sub":"ann","exp":9e9}`, ""},
		{"the authorized party", auth.JWTConfig{AuthorizedParties: []string{"x", "https://app.example"}}, `{"azp":"https://app.example","sub":"ann","exp":9e9}`, "ann"},
		{"another party", auth.JWTConfig{AuthorizedParties: []string{"https://app.example"}}, `{"azp":"https://other.example","client_id":"https://app.example","sub":"ann","exp":9e9}`, ""},
		{"no party", auth.JWTConfig{AuthorizedParties: []string{"https://app.example"}}, `{"sub":"ann","exp":9e9}`, ""},
		{"the client of an access token", auth.JWTConfig{AuthorizedParties: []string{"1h57kf5cpq"}}, `{"client_id":"1h57kf5cpq","sub":"ann","exp":9e9}`, "ann"},
		{"another client", auth.JWTConfig{AuthorizedParties: []string{"1h57kf5cpq"}}, `{"client_id":"2","sub":"ann","exp":9e9}`, ""},
		{"valid in the future", auth.JWTConfig{}, `{"sub":"ann","exp":9e9,"nbf":` + later + `}`, ""},
	} {
		test.cfg.Secret = secret
		id, err := newJWT(t, test.cfg).Authenticate(bearer(token(test.payload)))
		if id.User != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %+v, %v", test.name, id, err)
		}
	}
	r := httptest.NewRequest("GET", "/events", nil)
	r.Header.Set("Cookie", "usercast=x; mine="+token(`{"sub":"ann","exp":9e9}`))
	if _, err := newJWT(t, auth.JWTConfig{Secret: secret, Cookie: "mine"}).Authenticate(r); err != nil {
		t.Errorf("another cookie: %v", err)
	}
}

// Errors do not quote any part of a token.
func TestJWTErrorsDoNotQuoteTheToken(t *testing.T) {
	j := newJWT(t, auth.JWTConfig{Secret: secret, Issuers: []string{"https://login.example"}})
	b64 := base64.RawURLEncoding
	for _, token := range []string{
		"hidden", "hidden.hidden.hidden", b64.EncodeToString([]byte(`{"alg":"hidden"}`)) + ".hidden.hidden", b64.EncodeToString([]byte(`hidden`)) + "..",
		sign(t, jwt.SigningMethodHS256, []byte("hidden"), "hidden", `{"sub":"hidden","exp":9e9}`),
		sign(t, jwt.SigningMethodHS256, secret, "hidden", `hidden`),
		sign(t, jwt.SigningMethodHS256, secret, "hidden", `{"sub":["hidden"],"exp":9e9,"iss":"https://login.example"}`),
		sign(t, jwt.SigningMethodHS256, secret, "hidden", `{"sub":"hidden","exp":"hidden"}`),
		sign(t, jwt.SigningMethodHS256, secret, "hidden", `{"sub":"hidden","exp":9e9,"iss":"hidden"}`),
		sign(t, jwt.SigningMethodHS256, secret, "hidden", `{"sub":"hidden\u0000","exp":9e9,"iss":"https://login.example"}`),
		sign(t, jwt.SigningMethodHS256, secret, "hidden", `{"sub":"hidden","topics":"hidden","exp":9e9,"iss":"https://login.example"}`),
	} {
		_, err := j.Authenticate(bearer(token))
		if err == nil || strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), token) {
			t.Errorf("%q: %v", token, err)
		}
	}
}

func TestJWTSources(t *testing.T) {
	good := sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"ann","exp":9e9}`)
	for _, test := range []struct {
		header, query, cookies string
		off                    bool
		err                    error
	}{
		{"Bearer " + good, "token=x", "usercast=x", false, nil},
		{"Bearer x", "token=" + good, "usercast=" + good, false, auth.ErrUnauthorized},
		{"Basic x", "token=" + good, "usercast=x", false, nil},
		{"", "token=x", "usercast=" + good, false, auth.ErrUnauthorized},
		{"", "token=x", "usercast=" + good, true, nil},
		{"", "token=x&token=x", "", false, auth.ErrMalformed},
		{"", "", "usercast=" + good + "; usercast=" + good, false, nil},
		{"", "", "usercast=" + good + "; usercast.0=x", false, nil},
		{"", "", "usercast=" + good + "; usercast=x", false, auth.ErrUnauthorized},
		{"", "", "", false, auth.ErrUnauthorized},
	} {
		r := httptest.NewRequest("GET", "/events?"+test.query, nil)
		r.Header.Set("Cookie", test.cookies)
		if test.header != "" {
			r.Header.Set("Authorization", test.header)
		}
		j := newJWT(t, auth.JWTConfig{Secret: secret, Query: !test.off})
		if _, err := j.Authenticate(r); !errors.Is(err, test.err) {
			t.Errorf("%.10s, %.10s, %.20s: %v, want %v", test.header, test.query, test.cookies, err, test.err)
		}
	}
}

func TestJWKSUnknownKidsAreBounded(t *testing.T) {
	defer goleak.VerifyNone(t)
	pub, ed, _ := ed25519.GenerateKey(rand.Reader)
	var fetches atomic.Int32
	var broken atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{
			map[string]string{"kty": "oct", "kid": "oct", "k": base64.RawURLEncoding.EncodeToString(secret)},
			map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": base64.RawURLEncoding.EncodeToString(pub)},
		}})
	}))
	defer s.Close()
	j, err := auth.NewJWT(auth.JWTConfig{JWKSURLs: []string{s.URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	const payload = `{"sub":"ann","exp":9e9}`
	good := bearer(sign(t, jwt.SigningMethodEdDSA, ed, "a", payload))
	if _, err := j.Authenticate(good); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodHS256, secret, "oct", payload))); err == nil {
		t.Error("a symmetric key was used")
	}
	unknown := func(kid string) (no bool) {
		_, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodEdDSA, ed, kid, payload)))
		if err == nil {
			t.Errorf("the unknown kid %s was accepted", kid)
		}
		return errors.Is(err, auth.ErrUnauthorized)
	}
	start, before := time.Now(), fetches.Load()
	var denied []string
	for i := range 100 {
		if kid := fmt.Sprint("u", i); unknown(kid) {
			denied = append(denied, kid)
		}
	}
	// Only kids for which a fetch was sent are rejected permanently; the others might exist.
	fetched := fetches.Load() - before
	if len(denied) == 0 || len(denied) > int(fetched) {
		t.Errorf("%d kids are rejected permanently after %d fetches", len(denied), fetched)
	}
	for range 100 {
		if !unknown(denied[len(denied)-1]) {
			t.Error("a kid that is known to be missing is rejected temporarily")
		}
	}
	if n := fetches.Load() - before; n != fetched {
		t.Errorf("%d fetches for a kid that is known to be missing", n-fetched)
	}
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() { unknown(fmt.Sprint("v", i)) })
	}
	wg.Wait()
	// The initial fetch, a burst of three, and one per five seconds.
	if n, most := fetches.Load()-before, 3+1+int32(time.Since(start)/(5*time.Second)); n > most {
		t.Errorf("%d fetches for 200 unknown kids, want %d at most", n, most)
	}
	broken.Store(true)
	if unknown("new") {
		t.Error("an unknown kid is rejected permanently while the key set is unavailable")
	}
	if _, err := j.Authenticate(good); err != nil {
		t.Errorf("a known key while the key set is unavailable: %v", err)
	}
}

func TestJWKSRotation(t *testing.T) {
	pub, ed, _ := ed25519.GenerateKey(rand.Reader)
	var kid atomic.Value
	kid.Store("a")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}]}`, kid.Load(), base64.RawURLEncoding.EncodeToString(pub))
	}))
	defer s.Close()
	j := newJWT(t, auth.JWTConfig{JWKSURLs: []string{s.URL}})
	a := bearer(sign(t, jwt.SigningMethodEdDSA, ed, "a", `{"sub":"ann","exp":9e9}`))
	b := bearer(sign(t, jwt.SigningMethodEdDSA, ed, "b", `{"sub":"ann","exp":9e9}`))
	if _, err := j.Authenticate(a); err != nil {
		t.Errorf("the first key: %v", err)
	}
	kid.Store("b")
	if _, err := j.Authenticate(b); err != nil {
		t.Errorf("the next key: %v", err)
	}
	if _, err := j.Authenticate(a); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("the removed key: %v, want a permanent rejection", err)
	}
}

func FuzzJWT(f *testing.F) {
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.")
	j := newJWT(f, auth.JWTConfig{Secret: secret, AllowNoExpiry: true})
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := j.Authenticate(bearer(token)); err == nil {
			t.Errorf("%q is accepted: %+v", token, id)
		}
	})
}

// FuzzJWTClaims compares each accepted payload with an independent reading.
func FuzzJWTClaims(f *testing.F) {
	for _, seed := range []string{
		`{"sub":"a","exp":9e9}`, `{"sub":42,"exp":1e400}`, `{"sub":-0,"exp":9e99,"topics":["x",""]}`, `{"exp":null}`, `{"sub":"a","exp":9e9,"topics":null}`, `{"sub":"a","exp":9e9,"groups":["x",7,"7","",1.0]}`, `[]`, `{"sub":"a","exp":9e9} {}`,
	} {
		f.Add([]byte(seed))
	}
	j := newJWT(f, auth.JWTConfig{Secret: secret, GroupsClaim: "groups"})
	f.Fuzz(func(t *testing.T, payload []byte) {
		id, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodHS256, secret, "", string(payload))))
		if err != nil {
			if !errors.Is(err, auth.ErrUnauthorized) && !errors.Is(err, auth.ErrBadUser) {
				t.Errorf("%q: %v is not a permanent rejection", payload, err)
			}
			return
		}
		var claims map[string]json.RawMessage
		if err := json.Unmarshal(payload, &claims); err != nil {
			t.Fatalf("%q is accepted, but is not JSON: %v", payload, err)
		}
		var name string
		if json.Unmarshal(claims["sub"], &name) != nil {
			name = string(claims["sub"])
			for i, c := range name {
				if (c < '0' || c > '9') && (c != '-' || i > 0) {
					t.Errorf("%q: the user %q is neither a string nor an integer", payload, name)
				}
			}
		}
		if id.User != name {
			t.Errorf("%q: user %q, want %q", payload, id.User, name)
		}
		if !id.Expires.After(time.Now().Add(-time.Minute)) || id.Expires.Year() > 10000 {
			t.Errorf("%q: ends %v", payload, id.Expires)
		}
		if topics, ok := claims["topics"]; (ok && string(topics) != "null") != (id.Topics != nil) {
			t.Errorf("%q: topics %v", payload, id.Topics)
		}
		var groups []json.RawMessage
		if json.Unmarshal(claims["groups"], &groups) != nil && claims["groups"] != nil {
			t.Errorf("%q is accepted with groups that are not a list", payload)
		}
		want := make(map[string]bool)
		for _, group := range groups {
			name := string(group)
			if group[0] == '"' {
				json.Unmarshal(group, &name)
			} else if _, err := strconv.ParseInt(name, 10, 64); err != nil && !errors.Is(err, strconv.ErrRange) {
				t.Errorf("%q: the group %s is neither a string nor an integer", payload, group)
			}
			want[name] = true
		}
		for _, name := range id.Groups {
			delete(want, name)
		}
		if len(want) > 0 {
			t.Errorf("%q: groups %q, without %v", payload, id.Groups, want)
		}
	})
}

// A token that is otherwise valid is rejected temporarily before its time, and for a while after it: the page has time to
// renew it.
func TestJWTTimeIsATemporaryRejection(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for _, test := range []struct {
		name    string
		grace   time.Duration
		payload string
		want    error
	}{
		{"just expired", 0, fmt.Sprintf(`"exp":%d`, at(-35*time.Second)), auth.ErrExpired},
		{"expired within the grace", 0, fmt.Sprintf(`"exp":%d`, at(-5*time.Minute)), auth.ErrExpired},
		{"expired before it", 0, fmt.Sprintf(`"exp":%d`, at(-6*time.Minute)), auth.ErrUnauthorized},
		{"expired within a long grace", time.Hour, fmt.Sprintf(`"exp":%d`, at(-time.Hour)), auth.ErrExpired},
		{"expired without a grace", -1, fmt.Sprintf(`"exp":%d`, at(-35*time.Second)), auth.ErrUnauthorized},
		{"not valid yet, without a grace", -1, fmt.Sprintf(`"exp":9e9,"nbf":%d`, at(time.Minute)), auth.ErrExpired},
		{"not valid for a long time", 0, `"exp":9e9,"nbf":8e9`, auth.ErrExpired},
		{"expired before it was valid", 0, fmt.Sprintf(`"exp":1,"nbf":%d`, at(time.Minute)), auth.ErrUnauthorized},
		{"expired, of another issuer", 0, fmt.Sprintf(`"exp":%d,"iss":"you"`, at(-time.Minute)), auth.ErrUnauthorized},
		{"expired, with a wrong user", 0, fmt.Sprintf(`"exp":%d,"sub":[]`, at(-time.Minute)), auth.ErrUnauthorized},
		{"not valid yet, with wrong topics", 0, `"exp":9e9,"nbf":8e9,"topics":1`, auth.ErrUnauthorized},
	} {
		j := newJWT(t, auth.JWTConfig{Secret: secret, Issuers: []string{"me"}, ExpiredGrace: test.grace})
		_, err := j.Authenticate(bearer(sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"ann","iss":"me",`+test.payload+`}`)))
		if !errors.Is(err, test.want) || isPermanent(err) != (test.want == auth.ErrUnauthorized) || auth.Hint(err) == "" && test.want == auth.ErrExpired {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	// A forged token is not worth waiting for.
	j := newJWT(t, auth.JWTConfig{Secret: secret})
	forged := sign(t, jwt.SigningMethodHS256, []byte("another secret of the right length"), "", fmt.Sprintf(`{"sub":"ann","exp":%d}`, at(-time.Minute)))
	if _, err := j.Authenticate(bearer(forged)); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("forged: %v", err)
	}
}

// A proxy can pass the token in a header of its own.
func TestJWTHeader(t *testing.T) {
	t.Parallel()
	const name = "Cf-Access-Jwt-Assertion"
	token := func(user string) string {
		return sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"`+user+`","exp":9e9}`)
	}
	j := newJWT(t, auth.JWTConfig{Secret: secret, Header: name, Query: true})
	for _, test := range []struct {
		name    string
		headers [][2]string
		user    string
		err     error
	}{
		{"the token", [][2]string{{name, token("ann")}}, "ann", nil},
		{"with a scheme", [][2]string{{name, "bearer " + token("ann")}}, "ann", nil},
		{"before the others", [][2]string{{name, token("ann")}, {"Authorization", "Bearer " + token("bob")}, {"Cookie", "usercast=" + token("bob")}}, "ann", nil},
		{"invalid, before the others", [][2]string{{name, "x"}, {"Cookie", "usercast=" + token("bob")}}, "", auth.ErrUnauthorized},
		{"empty", [][2]string{{name, ""}, {"Cookie", "usercast=" + token("bob")}}, "bob", nil},
		{"absent", [][2]string{{"Authorization", "Bearer " + token("bob")}}, "bob", nil},
		{"twice", [][2]string{{name, token("ann")}, {name, token("bob")}}, "", auth.ErrMalformed},
	} {
		r := httptest.NewRequest("GET", "/events", nil)
		for _, h := range test.headers {
			r.Header.Add(h[0], h[1])
		}
		if id, err := j.Authenticate(r); id.User != test.user || !errors.Is(err, test.err) {
			t.Errorf("%s: %q, %v; want %q, %v", test.name, id.User, err, test.user, test.err)
		}
	}
	// Without the flag, the header does not count.
	r := httptest.NewRequest("GET", "/events", nil)
	r.Header.Set(name, token("ann"))
	if _, err := newJWT(t, auth.JWTConfig{Secret: secret}).Authenticate(r); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("without the flag: %v", err)
	}
}

// Cookies of session libraries are named for what they are, with a way out.
func TestJWTNamesWhatIsNotAToken(t *testing.T) {
	t.Parallel()
	good := sign(t, jwt.SigningMethodHS256, secret, "", `{"sub":"ann","exp":9e9}`)
	for _, test := range []struct{ cookie, err, hint string }{
		{"usercast=eyJhbGciOiJkaXIifQ..iv.text.tag", "encrypted", "--auth forward"},
		{"usercast.0=eyJhbGciOiJkaXIifQ..iv.te; usercast.1=xt.tag", "split into parts (usercast.0", "--auth forward"},
		{"usercast=base64-eyJhY2Nlc3NfdG9rZW4iOiIifQ", "Supabase", "access token"},
		{"usercast=opaque", "three parts", "opaque access token"},
		{"usercast=" + good + ".x", "three parts", ""},
		{"usercast.1=" + good, "no token", "--jwt-cookie"},
		{"other=" + good, "no token", "--jwt-header"},
	} {
		r := httptest.NewRequest("GET", "/events", nil)
		r.Header.Set("Cookie", test.cookie)
		_, err := newJWT(t, auth.JWTConfig{Secret: secret}).Authenticate(r)
		if !errors.Is(err, auth.ErrUnauthorized) || !strings.Contains(err.Error(), test.err) || !strings.Contains(auth.Hint(err), test.hint) {
			t.Errorf("%.20s: %v (%s), want %q (%q)", test.cookie, err, auth.Hint(err), test.err, test.hint)
		}
	}
}

// An AWS load balancer pads the base64 of its tokens, and signs the padded text.
func TestJWTWithPadding(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := base64.URLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"1","signer":"arn"}`)) + "." +
		base64.URLEncoding.EncodeToString([]byte(`{"sub":"ann","exp":9e9}`))
	signature, err := jwt.SigningMethodES256.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	padded := text + "." + base64.URLEncoding.EncodeToString(signature)
	if strings.Count(padded, "=") < 3 {
		t.Fatalf("%s has too little padding for this test", padded)
	}
	j := newJWT(t, auth.JWTConfig{KeyPEM: pemOf("PUBLIC KEY", der), Header: "X-Amzn-Oidc-Data"})
	r := httptest.NewRequest("GET", "/events", nil)
	r.Header.Set("X-Amzn-Oidc-Data", padded)
	if id, err := j.Authenticate(r); err != nil || id.User != "ann" {
		t.Errorf("%+v, %v", id, err)
	}
	r.Header.Set("X-Amzn-Oidc-Data", strings.Replace(padded, "=", "", 1)) // not the text that was signed
	if _, err := j.Authenticate(r); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("without some of its padding: %v", err)
	}
}
