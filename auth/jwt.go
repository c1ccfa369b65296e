package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

// Skew is the accepted difference between the clocks of the hub and of the token's issuer. Identity.Expires includes it.
const Skew = 30 * time.Second

const maxTokenBytes = 16 << 10 // far more than most proxies accept in a header line

// JWTConfig configures a JWT. Exactly one of Secret, KeyPEM and JWKSURL must be set. The zero value of each other field
// means its default.
type JWTConfig struct {
	Secret       []byte        // for HS256, HS384 and HS512; at least 32 bytes
	OtherSecrets [][]byte      // accepted in addition to Secret, while it is being replaced
	KeyPEM       []byte        // 1 to 8 public keys or certificates: RSA (RS*, PS*), EC (the ES* of its curve), Ed25519 (EdDSA)
	JWKSURL      string        // http:// or https:// URL of a JWK set, which is refreshed every hour
	Timeout      time.Duration // of a fetch of JWKSURL; default 5 s

	Issuer        string // required iss claim; default: not checked
	Audience      string // required member of the aud claim; default: not checked
	UserClaim     string // claim with the user, a string or an integer; default "sub"
	Cookie        string // cookie with the token; default "usercast"
	Query         bool   // accept the token in the query, as ?token=
	AllowNoExpiry bool   // accept tokens without an exp claim

	Logger *slog.Logger // default: no logging
}

// A JWT authenticates requests by signed tokens (RFC 7519). Close it after use. It is safe for concurrent use.
type JWT struct {
	// Immutable after NewJWT.
	cfg    JWTConfig
	jwks   *jwks // or nil
	parser *jwt.Parser

	keys atomic.Pointer[[]verifyKey] // without a JWKSURL
}

// NewJWT returns an error if the configuration is invalid. With a JWKSURL, it starts to fetch the set and returns
// immediately. Until the set is available, requests are rejected temporarily.
func NewJWT(cfg JWTConfig) (*JWT, error) {
	given := 0
	for _, set := range []bool{len(cfg.Secret) > 0, len(cfg.KeyPEM) > 0, cfg.JWKSURL != ""} {
		if set {
			given++
		}
	}
	if given != 1 {
		return nil, errors.New("jwt needs exactly one of a secret, a public key and a JWKS URL")
	}
	if cfg.UserClaim == "" {
		cfg.UserClaim = "sub"
	}
	if cfg.Cookie == "" {
		cfg.Cookie = "usercast"
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// The claims are checked here, not by the library, whose errors may quote them.
	j := &JWT{cfg: cfg, parser: jwt.NewParser(jwt.WithJSONNumber(), jwt.WithoutClaimsValidation())}
	var err error
	if cfg.JWKSURL != "" {
		j.jwks, err = startJWKS(cfg.JWKSURL, cfg.Timeout, cfg.Logger)
	} else {
		err = j.SetKeys(JWTKeys{cfg.Secret, cfg.OtherSecrets, cfg.KeyPEM})
	}
	if err != nil {
		return nil, err
	}
	return j, nil
}

// Close cancels fetches of JWKSURL and waits for them. It can be called more than once.
func (j *JWT) Close() {
	if j.jwks != nil {
		j.jwks.close()
	}
}

// Refetch fetches the set at JWKSURL now and reports whether its keys have changed. If the fetch fails, the known
// keys stay valid. It blocks until the fetch has ended or ctx ends. Without a JWKSURL it does nothing.
func (j *JWT) Refetch(ctx context.Context) (changed bool, err error) {
	if j.jwks == nil {
		return false, nil
	}
	return j.jwks.refetch(ctx)
}

// unauthorized returns an error that wraps ErrUnauthorized.
func unauthorized(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnauthorized}, args...)...)
}

// Authenticate is an Authenticator. It blocks only with a JWKSURL, if no known key verifies the token: it then waits
// until the set has been fetched again, for Timeout at most.
func (j *JWT) Authenticate(r *http.Request) (Identity, error) {
	raw, err := j.token(r)
	if err != nil {
		return Identity{}, err
	}
	if len(raw) > maxTokenBytes {
		return Identity{}, unauthorized("the token is longer than 16 KiB")
	}
	claims := jwt.MapClaims{}
	token, err := j.parse(raw, claims)
	if err != nil {
		return Identity{}, err
	}
	check := func(keys []verifyKey) error { return verify(token, keys, j.jwks != nil) }
	_, critical := token.Header["crit"] // RFC 7515, section 4.1.11
	switch {
	case critical:
		err = unauthorized("the token has a crit header, which is not supported")
	case j.jwks == nil:
		err = check(*j.keys.Load())
	case !slices.Contains(publicAlgs, token.Method.Alg()): // a set cannot contain a key for it
		err = algorithmError(token.Method.Alg())
	default:
		err = j.jwks.verify(r.Context(), raw, check)
	}
	if err != nil {
		return Identity{}, err
	}
	return j.identity(claims, time.Now())
}

// token returns the token from Authorization, the query, or the cookie: the first of them that is present. If that
// one is invalid, the others are not tried.
func (j *JWT) token(r *http.Request) (string, error) {
	switch headers := r.Header.Values("Authorization"); len(headers) {
	case 0:
	case 1:
		if scheme, token, _ := strings.Cut(headers[0], " "); strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token), nil
		}
	default:
		return "", fmt.Errorf("%w: more than one Authorization header", ErrMalformed)
	}
	if j.cfg.Query {
		query, err := url.ParseQuery(r.URL.RawQuery)
		switch tokens := query["token"]; {
		case len(tokens) > 1:
			return "", fmt.Errorf("%w: more than one token in the query", ErrMalformed)
		case len(tokens) == 1:
			return tokens[0], nil
		case err != nil:
			return "", fmt.Errorf("%w: malformed query string", ErrMalformed)
		}
	}
	cookies := r.CookiesNamed(j.cfg.Cookie)
	if len(cookies) == 0 {
		return "", WithHint(unauthorized("no token in the request"), "set --jwt-cookie to the name of the cookie, or --jwt-query to accept ?token=")
	}
	for _, c := range cookies[1:] {
		if c.Value != cookies[0].Value { // a sibling subdomain may have set one of them
			return "", unauthorized("the request has conflicting token cookies")
		}
	}
	return cookies[0].Value, nil
}

// parse reads a token without verifying it.
func (j *JWT) parse(raw string, claims jwt.MapClaims) (*jwt.Token, error) {
	token, parts, err := j.parser.ParseUnverified(raw, claims)
	if errors.Is(err, jwt.ErrTokenUnverifiable) {
		alg, _ := token.Header["alg"].(string)
		if token.Method = jwt.GetSigningMethod(algorithm(alg)); token.Method == nil {
			return nil, unauthorized("unsupported token algorithm")
		}
		token.Signature, err = j.parser.DecodeSegment(parts[2])
	}
	if err != nil { // the library's error may quote the token
		return nil, unauthorized("malformed token")
	}
	// The library reads one JSON value and ignores what follows it.
	payload, err := j.parser.DecodeSegment(parts[1])
	if err != nil || !json.Valid(payload) {
		return nil, unauthorized("the token's claims are not valid JSON")
	}
	return token, nil
}

// keysHint is the hint for a token that was signed with an unknown key.
const keysHint = "check the key in --jwt-secret-file, --jwt-key-file or --jwt-jwks-url"

// algorithmError rejects a token whose algorithm does not match any key.
func algorithmError(alg string) error {
	err := unauthorized("token algorithm %s is not allowed", alg)
	if alg == "none" {
		return WithHint(err, "sign the tokens; unsigned tokens are never accepted")
	}
	return WithHint(err, keysHint)
}

// verify returns nil if one of the keys verifies the token. If isSet, it selects the keys by the token's kid.
func verify(token *jwt.Token, keys []verifyKey, isSet bool) error {
	alg := token.Method.Alg()
	if isSet {
		kid, hasKid := "", false
		if v, has := token.Header["kid"]; has {
			if kid, hasKid = v.(string); !hasKid {
				return unauthorized("the token's kid header is not a string")
			}
		}
		var err error
		if keys, err = find(keys, kid, hasKid, alg); err != nil {
			return err
		}
	}
	text := token.Raw[:strings.LastIndexByte(token.Raw, '.')]
	err := algorithmError(alg)
	for _, k := range keys {
		if slices.Contains(k.algs, alg) {
			if token.Method.Verify(text, token.Signature, k.key) == nil {
				return nil
			}
			err = WithHint(unauthorized("invalid token signature"), keysHint)
		}
	}
	return err
}

func (j *JWT) identity(claims jwt.MapClaims, now time.Time) (id Identity, err error) {
	exp, hasExp, err := date(claims, "exp")
	if err != nil {
		return Identity{}, err
	}
	nbf, hasNbf, err := date(claims, "nbf")
	if err != nil {
		return Identity{}, err
	}
	iat, hasIat, err := date(claims, "iat")
	if err != nil {
		return Identity{}, err
	}
	switch {
	case !hasExp && !j.cfg.AllowNoExpiry:
		return Identity{}, WithHint(unauthorized("the token does not have an exp claim"), "add an exp claim to the token, or set --jwt-allow-no-exp to accept tokens without one")
	case hasExp && !now.Before(exp.Add(Skew)):
		return Identity{}, unauthorized("the token has expired")
	case hasNbf && now.Before(nbf.Add(-Skew)):
		return Identity{}, unauthorized("the token is not valid yet")
	case hasIat && now.Before(iat.Add(-Skew)):
		return Identity{}, unauthorized("the token was issued in the future")
	case j.cfg.Issuer != "" && claims["iss"] != any(j.cfg.Issuer):
		return Identity{}, WithHint(unauthorized("the token is from another issuer"), "set --jwt-issuer to the iss claim of the tokens")
	case j.cfg.Audience != "" && !has(claims["aud"], j.cfg.Audience):
		return Identity{}, WithHint(unauthorized("the token is for another audience"), "set --jwt-audience to a value in the aud claim of the tokens")
	}
	if hasExp {
		id.Expires = exp.Add(Skew)
	}
	if id.User, err = user(claims, j.cfg.UserClaim); err != nil {
		return Identity{}, err
	}
	if topics := claims["topics"]; topics != nil {
		list, ok := topics.([]any)
		id.Topics = make([]string, len(list))
		for i, v := range list {
			if id.Topics[i], ok = v.(string); !ok || !isText(id.Topics[i]) {
				ok = false
				break
			}
		}
		if !ok {
			return Identity{}, unauthorized("the token's topics claim is not a list of strings")
		}
		id.Topics = distinct(id.Topics)
	}
	return id, nil
}

func has(aud any, want string) bool {
	if list, ok := aud.([]any); ok {
		return slices.Contains(list, any(want))
	}
	return aud == any(want)
}

// date reads a NumericDate (RFC 7519, section 2), kept within the years 1 to 9999. null is the same as absent.
func date(claims jwt.MapClaims, name string) (time.Time, bool, error) {
	if claims[name] == nil {
		return time.Time{}, false, nil
	}
	number, _ := claims[name].(json.Number)
	f, err := strconv.ParseFloat(string(number), 64)
	if err != nil || math.IsNaN(f) {
		return time.Time{}, false, unauthorized("the token's %s claim is not a Unix timestamp", name)
	}
	whole, part := math.Modf(min(max(f, -62135596800), 253402300799))
	return time.Unix(int64(whole), int64(part*1e9)), true, nil
}

// user returns a claim that is a string or an integer. An integer keeps its digits: a float64 could change them.
func user(claims jwt.MapClaims, name string) (string, error) {
	switch v := claims[name].(type) {
	case string:
		if !isText(v) {
			return "", fmt.Errorf("%w: it contains control characters or is not valid UTF-8", ErrBadUser)
		}
		return v, nil
	case json.Number:
		if !strings.ContainsAny(string(v), ".eE") && v != "-0" {
			return string(v), nil
		}
	case nil:
		if _, ok := claims[name]; !ok {
			return "", WithHint(unauthorized("the token does not have a %s claim", name), "set --jwt-claim to the claim with the user id")
		}
	}
	return "", unauthorized("the token's %s claim is neither a string nor an integer", name)
}

// isText reports whether s contains neither control characters nor U+FFFD, which replaces bytes that are not UTF-8.
func isText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError })
}
