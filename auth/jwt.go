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

// JWTConfig configures a JWT. Exactly one of Secret, KeyPEM and JWKSURLs must be set. The zero value of each other field
// means its default.
type JWTConfig struct {
	Secret       []byte        // for HS256, HS384 and HS512; at least 32 bytes
	OtherSecrets [][]byte      // accepted in addition to Secret, while it is being replaced; at least 32 bytes each
	KeyPEM       []byte        // 1 to 8 public keys or certificates: RSA (RS*, PS*), EC (the ES* of its curve), Ed25519 (EdDSA)
	JWKSURLs     []string      // http:// or https:// URLs of JWK sets, refreshed every hour; a token may be signed with a key of any set
	Timeout      time.Duration // of a fetch of a set; default 5 s

	Issuers           []string      // the iss claim must be one of them; default: not checked
	Audiences         []string      // the aud claim must contain one of them; default: not checked
	AuthorizedParties []string      // the azp claim, or client_id without one, must be one of them; default: not checked
	UserClaim         string        // claim with the user, a string or an integer; a.b names b in the object a; default "sub"
	GroupsClaim       string        // claim with the groups, a list of strings and integers, named as UserClaim; default: groups are not read
	Header            string        // header with the token, with or without "Bearer"; default: only Authorization
	Cookie            string        // cookie with the token; default "usercast"
	Query             bool          // accept the token in the query, as ?token=
	AllowNoExpiry     bool          // accept tokens without an exp claim
	ExpiredGrace      time.Duration // for how long after Identity.Expires a token is rejected temporarily; default 5 min; negative: not at all

	Logger *slog.Logger // default: no logging
}

// A JWT authenticates requests by signed tokens (RFC 7519). Close it after use. It is safe for concurrent use.
type JWT struct {
	// Immutable after NewJWT.
	cfg    JWTConfig
	sets   keySets // empty without JWKSURLs
	parser *jwt.Parser
	padded *jwt.Parser // for tokens with padding in their base64

	keys atomic.Pointer[[]verifyKey] // without JWKSURLs
}

// ErrExpired is a temporary rejection: the token has expired within JWTConfig.ExpiredGrace, or is not valid yet. The page
// has time to renew it, or the clocks to agree.
var ErrExpired = errors.New("the token is not valid at this time")

var (
	errExpired     = WithHint(fmt.Errorf("%w: it has expired", ErrExpired), "renew the token before its exp claim, and set the cookie again")
	errNotValidYet = WithHint(fmt.Errorf("%w: its nbf claim is in the future", ErrExpired), "compare the clocks of the hub and of the token's issuer")
)

// NewJWT returns an error if the configuration is invalid. With JWKSURLs, it starts to fetch the sets and returns
// immediately. Until they are available, requests are rejected temporarily.
func NewJWT(cfg JWTConfig) (*JWT, error) {
	given := 0
	for _, set := range []bool{len(cfg.Secret) > 0, len(cfg.KeyPEM) > 0, len(cfg.JWKSURLs) > 0} {
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
	if cfg.ExpiredGrace == 0 {
		cfg.ExpiredGrace = 5 * time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// The claims are checked here, not by the library, whose errors may quote them.
	options := []jwt.ParserOption{jwt.WithJSONNumber(), jwt.WithoutClaimsValidation()}
	j := &JWT{cfg: cfg, parser: jwt.NewParser(options...), padded: jwt.NewParser(append(options, jwt.WithPaddingAllowed())...)}
	var err error
	if len(cfg.JWKSURLs) > 0 {
		j.sets, err = startKeySets(cfg.JWKSURLs, cfg.Timeout, cfg.Logger)
	} else {
		err = j.SetKeys(JWTKeys{cfg.Secret, cfg.OtherSecrets, cfg.KeyPEM})
	}
	if err != nil {
		return nil, err
	}
	return j, nil
}

// Close cancels fetches of key sets and waits for them. It can be called more than once.
func (j *JWT) Close() { j.sets.close() }

// Refetch fetches all key sets now and reports whether their keys have changed. If a fetch fails, the known keys of that
// set stay valid. It blocks until all fetches have ended or ctx ends. Without JWKSURLs it does nothing.
func (j *JWT) Refetch(ctx context.Context) (changed bool, err error) { return j.sets.refetch(ctx) }

// unauthorized returns an error that wraps ErrUnauthorized.
func unauthorized(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnauthorized}, args...)...)
}

// Authenticate is an Authenticator. It blocks only with JWKSURLs, if no known key verifies the token: it then waits
// until the sets have been fetched again, for Timeout at most.
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
	check := func(keys []verifyKey) error { return verify(token, keys, len(j.sets) > 0) }
	_, critical := token.Header["crit"] // RFC 7515, section 4.1.11
	switch {
	case critical:
		err = unauthorized("the token has a crit header, which is not supported")
	case len(j.sets) == 0:
		err = check(*j.keys.Load())
	case !slices.Contains(publicAlgs, token.Method.Alg()): // a set cannot contain a key for it
		err = algorithmError(token.Method.Alg())
	default:
		err = j.sets.verify(r.Context(), raw, check)
	}
	if err != nil {
		return Identity{}, err
	}
	return j.identity(claims, time.Now())
}

// token returns the token from Header, Authorization, the query, or the cookie: the first of them that is present. If that
// one is invalid, the others are not tried.
func (j *JWT) token(r *http.Request) (string, error) {
	if j.cfg.Header != "" {
		switch values := r.Header.Values(j.cfg.Header); {
		case len(values) > 1:
			return "", fmt.Errorf("%w: more than one %s header", ErrMalformed, j.cfg.Header)
		case len(values) == 1 && values[0] != "": // a proxy may send an empty header for users that it did not authenticate
			if scheme, token, _ := strings.Cut(values[0], " "); strings.EqualFold(scheme, "Bearer") {
				return strings.TrimSpace(token), nil
			}
			return values[0], nil
		}
	}
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
		if len(r.CookiesNamed(j.cfg.Cookie+".0")) > 0 { // as NextAuth and Supabase split a cookie of more than 4 KiB
			return "", WithHint(unauthorized("the token cookie is split into parts (%s.0, …), which only its own library can read", j.cfg.Cookie), unreadableHint)
		}
		return "", WithHint(unauthorized("no token in the request"), "set --jwt-cookie to the name of the cookie, --jwt-header to the header of a proxy, or --jwt-query to accept ?token=")
	}
	for _, c := range cookies[1:] {
		if c.Value != cookies[0].Value { // a sibling subdomain may have set one of them
			return "", unauthorized("the request has conflicting token cookies")
		}
	}
	return cookies[0].Value, nil
}

// unreadableHint is the hint for session cookies that are not signed tokens.
const unreadableHint = "use --auth forward, which lets the app read its own cookie"

// checkForm returns an error that describes a text that cannot be a signed token.
func checkForm(raw string) error {
	switch dots := strings.Count(raw, "."); {
	case dots == 2:
		return nil
	case dots == 4: // RFC 7516, section 3.1
		return WithHint(unauthorized("the token is encrypted (a JWE, with five parts), and the hub cannot decrypt it"), unreadableHint)
	case strings.HasPrefix(raw, "base64-"): // the cookie of @supabase/ssr
		return WithHint(unauthorized("the token is not a JWT but a Supabase session"), "write the access token of the session into a cookie, or use --auth forward")
	}
	return WithHint(unauthorized("malformed token: a JWT has three parts, separated by dots"),
		"an opaque access token cannot be verified: request one for an audience, use the ID token, or use --auth forward")
}

// parse reads a token without verifying it.
func (j *JWT) parse(raw string, claims jwt.MapClaims) (*jwt.Token, error) {
	if err := checkForm(raw); err != nil {
		return nil, err
	}
	parser := j.parser
	if strings.Contains(raw, "=") { // an AWS load balancer pads its tokens
		parser = j.padded
	}
	token, parts, err := parser.ParseUnverified(raw, claims)
	if errors.Is(err, jwt.ErrTokenUnverifiable) {
		alg, _ := token.Header["alg"].(string)
		if token.Method = jwt.GetSigningMethod(algorithm(alg)); token.Method == nil {
			return nil, unauthorized("unsupported token algorithm")
		}
		token.Signature, err = parser.DecodeSegment(parts[2])
	}
	if err != nil { // the library's error may quote the token
		return nil, unauthorized("malformed token")
	}
	// The library reads one JSON value and ignores what follows it.
	payload, err := parser.DecodeSegment(parts[1])
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
	if err := j.checkParties(claims); err != nil {
		return Identity{}, err
	}
	if id.User, err = user(claims, j.cfg.UserClaim); err != nil {
		return Identity{}, err
	}
	if id.Topics, err = topics(claims, "topics"); err != nil {
		return Identity{}, err
	}
	if j.cfg.GroupsClaim != "" {
		if id.Groups, err = groups(claims, j.cfg.GroupsClaim); err != nil {
			return Identity{}, err
		}
	}
	// The times come last: a token that is rejected temporarily because of them must be valid otherwise. iat is not
	// checked, because it is informative (RFC 7519, section 4.1.6).
	switch {
	case !hasExp && !j.cfg.AllowNoExpiry:
		return Identity{}, WithHint(unauthorized("the token does not have an exp claim"), "add an exp claim to the token, or set --jwt-allow-no-exp to accept tokens without one")
	case hasExp && now.Sub(exp.Add(Skew)) >= max(j.cfg.ExpiredGrace, 0):
		return Identity{}, WithHint(unauthorized("the token has expired"), "renew the token before its exp claim, and set the cookie again")
	case hasExp && !now.Before(exp.Add(Skew)):
		return Identity{}, errExpired
	case hasNbf && now.Before(nbf.Add(-Skew)):
		return Identity{}, errNotValidYet
	}
	if hasExp {
		id.Expires = exp.Add(Skew)
	}
	return id, nil
}

// checkParties checks by whom and for whom the token was issued.
func (j *JWT) checkParties(claims jwt.MapClaims) error {
	if want := j.cfg.Issuers; len(want) > 0 && !isOne(claims["iss"], want) {
		return WithHint(unauthorized("the token is from another issuer"), "set --jwt-issuer to the iss claim of the tokens")
	}
	if want := j.cfg.Audiences; len(want) > 0 {
		list, isList := claims["aud"].([]any)
		if !slices.ContainsFunc(list, func(aud any) bool { return isOne(aud, want) }) && (isList || !isOne(claims["aud"], want)) {
			return WithHint(unauthorized("the token is for another audience"), "set --jwt-audience to a value in the aud claim of the tokens")
		}
	}
	if want := j.cfg.AuthorizedParties; len(want) > 0 {
		party := claims["azp"] // OpenID Connect Core, section 2
		if party == nil {
			party = claims["client_id"] // RFC 9068, section 2.2
		}
		if !isOne(party, want) {
			return WithHint(unauthorized("the token was issued to another party"), "set --jwt-authorized-party to the azp claim of the tokens, or to client_id if they do not have azp")
		}
	}
	return nil
}

// isOne reports whether a claim is one of the texts.
func isOne(claim any, texts []string) bool {
	text, ok := claim.(string)
	return ok && slices.Contains(texts, text)
}

// lookup returns a claim. The name a.b means the claim with this name, as OpenID providers use URLs as names. Without one,
// it means b in the object a. null is the same as absent.
func lookup(claims map[string]any, name string) any {
	if v := claims[name]; v != nil {
		return v
	}
	for i := strings.LastIndexByte(name, '.'); i >= 0; i = strings.LastIndexByte(name[:i], '.') {
		if inner, ok := claims[name[:i]].(map[string]any); ok {
			if v := lookup(inner, name[i+1:]); v != nil {
				return v
			}
		}
	}
	return nil
}

// topics returns a claim that is a list of strings, without duplicates. It returns nil if the claim is absent.
func topics(claims jwt.MapClaims, name string) ([]string, error) {
	list, ok := listOf(claims, name, func(v any) (string, bool) {
		topic, ok := v.(string)
		return topic, ok && isText(topic)
	})
	if !ok {
		return nil, unauthorized("the token's %s claim is not a list of strings", name)
	}
	return list, nil
}

// listOf returns a claim that is a list whose elements text accepts, without duplicates. It returns nil if the claim is absent.
func listOf(claims jwt.MapClaims, name string, text func(v any) (string, bool)) (all []string, ok bool) {
	claim := lookup(claims, name)
	if claim == nil {
		return nil, true
	}
	elements, ok := claim.([]any)
	all = make([]string, len(elements))
	for i, v := range elements {
		if all[i], ok = text(v); !ok {
			break
		}
	}
	return distinct(all), ok
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

// user returns a claim that is a string or an integer.
func user(claims jwt.MapClaims, name string) (string, error) {
	claim := lookup(claims, name)
	switch id, ok := text(claim); {
	case claim == nil:
		return "", WithHint(unauthorized("the token does not have a %s claim", name), "set --jwt-claim to the claim with the user id; a.b names the member b of the claim a")
	case !ok:
		return "", unauthorized("the token's %s claim is neither a string nor an integer", name)
	case id == "":
		return "", emptyUser("set --jwt-claim (now " + name + ") to the claim with the user id")
	case !isText(id):
		return "", fmt.Errorf("%w: %s", ErrBadUser, notText)
	default:
		return id, nil
	}
}

// groups returns a claim that is a list of strings and integers, without duplicates. It returns nil if the claim is absent.
func groups(claims jwt.MapClaims, name string) ([]string, error) {
	groups, ok := listOf(claims, name, text)
	if !ok {
		return nil, WithHint(unauthorized("the token's %s claim is not a list of strings and integers", name),
			"set --jwt-groups-claim to a claim with a list of group names; a.b names the member b of the claim a")
	}
	for _, group := range groups {
		if !isText(group) {
			return nil, badGroup(group, notText, "list only names without control characters, in UTF-8")
		}
	}
	return groups, nil
}

// text returns a string or an integer of a claim as text. An integer keeps its digits: a float64 could change them.
func text(v any) (s string, ok bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return string(v), !strings.ContainsAny(string(v), ".eE") && v != "-0"
	}
	return "", false
}

// notText is the reason why a name is rejected for which isText returns false.
const notText = "it contains control characters or is not valid UTF-8"

// isText reports whether s contains neither control characters nor U+FFFD, which replaces bytes that are not UTF-8.
func isText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError })
}
