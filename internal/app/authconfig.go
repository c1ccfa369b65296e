package app

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"usercast/auth"
	"usercast/internal/flags"
	"usercast/internal/systemd"
	"usercast/internal/unixsocket"
)

// Defaults of --jwt-claim, --jwt-groups-claim and --jwt-cookie.
const (
	defaultClaim       = "sub"
	defaultGroupsClaim = "groups"
	defaultCookie      = "usercast"
)

// The modes of --auth.
const (
	AuthJWT      = "jwt"
	AuthForward  = "forward"
	AuthHeader   = "header"
	AuthInsecure = "insecure"
)

// AuthConfig holds the flags for the authentication of clients.
type AuthConfig struct {
	Auth                 string         `placeholder:"MODE" help:"How users are authenticated. jwt: by a signed token; forward: by a request to the app; header: by a trusted proxy; insecure: not at all, ?user=<id> is trusted. Required."`
	AuthInsecureAnywhere bool           `help:"Allow --auth insecure on a listener that other hosts can reach."`
	AuthTimeout          flags.Duration `default:"2s" placeholder:"DURATION" help:"Timeout of a request: with forward, to the app; with jwt, to the URL of the JWK set (default: ${default})."`

	ForwardURL      string         `placeholder:"URL" help:"With forward: URL of the app's session check, requested with the browser's cookies. 200 with the user id in a header accepts the client; 401 and 403 reject it."`
	ForwardHost     string         `placeholder:"HOST" help:"With forward: Host header of the session check; by default, the host of --forward-url. For apps that only accept their own host names, such as app.example."`
	ForwardHeader   []string       `placeholder:"NAME" help:"With forward: name of an additional request header that is sent to the app if the browser sends it; repeatable. Cookie, Authorization, Origin and User-Agent are always sent."`
	AuthCache       flags.Duration `default:"10s" placeholder:"DURATION" help:"With forward: how long a positive response is cached; 0 disables the cache (default: ${default})."`
	AuthConcurrency flags.Count    `default:"32" placeholder:"N" help:"With forward: maximum number of concurrent requests to the app; the hub sends fewer if the app is slow (default: ${default})."`
	UserHeader      string         `default:"${user_header_default}" placeholder:"NAME" help:"With forward and header: name of the header with the user id (default: ${default})."`
	TrustedProxy    []string       `placeholder:"CIDR" help:"With forward and header: network of a proxy whose headers are trusted, such as 10.0.0.0/8, or unix: for all processes that connect to a Unix socket; repeatable."`

	JWTSecretFile      []string       `name:"jwt-secret-file" placeholder:"FILE" help:"With jwt: file with the secret for HS256, HS384 and HS512, at least 32 bytes (or set USERCAST_JWT_SECRET). Repeatable for rotation: all secrets are accepted."`
	JWTKeyFile         string         `name:"jwt-key-file" placeholder:"FILE" help:"With jwt: PEM file with the public keys for the RS, PS, ES and EdDSA algorithms."`
	JWTJWKSURL         []string       `name:"jwt-jwks-url" placeholder:"URL" help:"With jwt: URL of the JWK set with the public keys. Repeatable: a token may be signed with a key of any set."`
	JWTIssuer          []string       `name:"jwt-issuer" placeholder:"ISS" help:"With jwt: required value of the iss claim; repeatable: one must match."`
	JWTAudience        []string       `name:"jwt-audience" placeholder:"AUD" help:"With jwt: value that the aud claim must contain; repeatable: one must match."`
	JWTAuthorizedParty []string       `name:"jwt-authorized-party" placeholder:"AZP" help:"With jwt: required value of the azp claim, or of client_id if the token does not have azp; repeatable: one must match."`
	JWTClaim           string         `name:"jwt-claim" default:"${jwt_claim_default}" placeholder:"CLAIM" help:"With jwt: name of the claim with the user id; a.b names the member b of the claim a (default: ${default})."`
	JWTGroupsClaim     string         `name:"jwt-groups-claim" default:"${jwt_groups_claim_default}" placeholder:"CLAIM" help:"With jwt and --group-prefix: name of the claim with the list of the user's groups; a.b names the member b of the claim a (default: ${default})."`
	JWTHeader          string         `name:"jwt-header" placeholder:"NAME" help:"With jwt: header in which a proxy passes the token, such as Cf-Access-Jwt-Assertion; it takes precedence over Authorization and the cookie."`
	JWTCookie          string         `name:"jwt-cookie" default:"${jwt_cookie_default}" placeholder:"NAME" help:"With jwt: name of the cookie with the token (default: ${default})."`
	JWTQuery           bool           `name:"jwt-query" help:"With jwt: also accept the token in ?token=. Proxies write it to their logs."`
	JWTAllowNoExp      bool           `name:"jwt-allow-no-exp" help:"With jwt: accept tokens without an exp claim."`
	JWTExpiredGrace    flags.Duration `name:"jwt-expired-grace" default:"5m" placeholder:"DURATION" help:"With jwt: how long after its expiry a token is rejected only temporarily (busy, reason expired), so that the page can renew it; 0 disables this (default: ${default})."`

	Settings *flags.EnvFile `kong:"-"` // may contain the secret; nil without --env-file

	// Set by Check.
	forwardURL *url.URL
	proxies    auth.Proxies
	keys       auth.JWTKeys
}

// Check adds all errors of c to errs. The argument listen is the address of the public listener.
func (c *AuthConfig) Check(errs *flags.Errors, listen string) {
	switch c.Auth {
	case AuthJWT:
		c.checkJWT(errs)
	case AuthForward:
		c.forwardURL = errs.URL("forward-url", c.ForwardURL, "http://127.0.0.1:3000/usercast/session")
		if c.ForwardHost != "" && !isHost(c.ForwardHost) {
			errs.Add("forward-host", "%q is not a host; use a value such as app.example or app.example:8443, without scheme and path", c.ForwardHost)
		}
		for _, name := range c.ForwardHeader {
			errs.Check("forward-header", checkForwardHeader(name))
		}
	case AuthHeader:
		if len(c.TrustedProxy) == 0 {
			errs.Add("trusted-proxy", "required with --auth header: the proxy's address or network, such as 10.0.0.5 or 10.0.0.0/8, or unix: if the proxy connects to a Unix socket")
		}
	case AuthInsecure:
		if !flags.IsLoopback(listen) && !c.AuthInsecureAnywhere {
			errs.Add("auth", "insecure lets any client that can reach %s read any user's messages; listen on 127.0.0.1, or set --auth-insecure-anywhere", listen)
		}
	case "":
		errs.Add("auth", "required. jwt: clients send a signed token; forward: the app authenticates each client; header: a trusted proxy sets the user; insecure: ?user=<id> is trusted, for local tests only")
	default:
		errs.Add("auth", "unknown mode %q; use jwt, forward, header or insecure", c.Auth)
	}
	c.checkUnused(errs)
	errs.Positive("auth-timeout", c.AuthTimeout)
	errs.NotNegative("auth-cache", c.AuthCache)
	errs.NotNegative("jwt-expired-grace", c.JWTExpiredGrace)
	errs.AtLeast("auth-concurrency", c.AuthConcurrency, 1)
	if !isToken(c.UserHeader) {
		errs.Add("user-header", "%q is not a valid header name", c.UserHeader)
	} else if slices.Contains(reservedHeaders, http.CanonicalHeaderKey(c.UserHeader)) {
		errs.Add("user-header", "%s is reserved; use another header for the user id", c.UserHeader)
	}
	for _, network := range c.TrustedProxy {
		prefix, ok := parseNetwork(network)
		if !ok {
			errs.Add("trusted-proxy", "%q is not an address or network; use a value such as 10.0.0.5 or 10.0.0.0/8, or unix: for a Unix socket", network)
			continue
		}
		c.proxies = append(c.proxies, prefix)
	}
}

// checkJWT reads the keys and checks the flags of --auth jwt.
func (c *AuthConfig) checkJWT(errs *flags.Errors) {
	secret := c.Settings.Variable(flags.JWTSecretVariable)
	sources := 0
	for _, isSet := range []bool{len(c.JWTSecretFile) > 0, secret != "", c.JWTKeyFile != "", len(c.JWTJWKSURL) > 0} {
		if isSet {
			sources++
		}
	}
	if sources != 1 {
		errs.Add("auth", "jwt requires exactly one of --jwt-secret-file (or %s), --jwt-key-file and --jwt-jwks-url", flags.JWTSecretVariable)
		return
	}
	if c.JWTClaim == "" {
		errs.Add("jwt-claim", "must not be empty")
	}
	if c.JWTGroupsClaim == "" {
		errs.Add("jwt-groups-claim", "must not be empty")
	}
	if !isToken(c.JWTCookie) {
		errs.Add("jwt-cookie", "%q is not a valid cookie name", c.JWTCookie)
	}
	switch name := http.CanonicalHeaderKey(c.JWTHeader); {
	case name == "", name == "Authorization":
	case !isToken(name):
		errs.Add("jwt-header", "%q is not a valid header name", c.JWTHeader)
	case slices.Contains(reservedHeaders, name):
		errs.Add("jwt-header", "%s is reserved; use the name of the header that contains only the token", c.JWTHeader)
	}
	for _, flag := range []struct {
		name   string
		values []string
	}{{"jwt-issuer", c.JWTIssuer}, {"jwt-audience", c.JWTAudience}, {"jwt-authorized-party", c.JWTAuthorizedParty}} {
		if slices.Contains(flag.values, "") {
			errs.Add(flag.name, "must not be empty; remove the flag to accept any value")
		}
	}
	if len(c.JWTJWKSURL) > 0 {
		for i, u := range c.JWTJWKSURL {
			if errs.URL("jwt-jwks-url", u, "https://login.example/.well-known/jwks.json") != nil && slices.Contains(c.JWTJWKSURL[:i], u) {
				errs.Add("jwt-jwks-url", "the same URL is set twice") // not quoted, because it may contain a password
			}
		}
		return
	}
	source := "auth" // USERCAST_JWT_SECRET is not a flag
	switch {
	case len(c.JWTSecretFile) > 0:
		source = "jwt-secret-file"
	case c.JWTKeyFile != "":
		source = "jwt-key-file"
	}
	var err error
	if c.keys, err = c.readKeys(c.Settings); errs.Check(source, err) {
		_, err = auth.NewJWT(auth.JWTConfig{Secret: c.keys.Secret, OtherSecrets: c.keys.OtherSecrets, KeyPEM: c.keys.KeyPEM})
		if err != nil && secret != "" {
			err = fmt.Errorf("%s: %w", flags.JWTSecretVariable, err)
		}
		errs.Check(source, err)
	}
}

// ForwardTo returns --forward-url, Proxies returns --trusted-proxy, and Keys returns the keys that verify tokens, unless
// --jwt-jwks-url is set. They return zero values before Check, and if the flag is invalid.
func (c *AuthConfig) ForwardTo() *url.URL   { return c.forwardURL }
func (c *AuthConfig) Proxies() auth.Proxies { return c.proxies }
func (c *AuthConfig) Keys() auth.JWTKeys    { return c.keys }

// checkUnused adds an error for each flag that is set but applies only to another mode of --auth. Limits and timeouts can
// be set in all modes.
func (c *AuthConfig) checkUnused(errs *flags.Errors) {
	if c.Auth == "" {
		return
	}
	for _, flag := range []struct {
		name  string
		isSet bool
		modes []string
	}{
		{"jwt-secret-file", len(c.JWTSecretFile) > 0, []string{AuthJWT}},
		{"jwt-key-file", c.JWTKeyFile != "", []string{AuthJWT}},
		{"jwt-jwks-url", len(c.JWTJWKSURL) > 0, []string{AuthJWT}},
		{"jwt-issuer", len(c.JWTIssuer) > 0, []string{AuthJWT}},
		{"jwt-audience", len(c.JWTAudience) > 0, []string{AuthJWT}},
		{"jwt-authorized-party", len(c.JWTAuthorizedParty) > 0, []string{AuthJWT}},
		{"jwt-claim", c.JWTClaim != defaultClaim, []string{AuthJWT}},
		{"jwt-groups-claim", c.JWTGroupsClaim != defaultGroupsClaim, []string{AuthJWT}},
		{"jwt-header", c.JWTHeader != "", []string{AuthJWT}},
		{"jwt-cookie", c.JWTCookie != defaultCookie, []string{AuthJWT}},
		{"jwt-query", c.JWTQuery, []string{AuthJWT}},
		{"jwt-allow-no-exp", c.JWTAllowNoExp, []string{AuthJWT}},
		{"forward-url", c.ForwardURL != "", []string{AuthForward}},
		{"forward-host", c.ForwardHost != "", []string{AuthForward}},
		{"forward-header", len(c.ForwardHeader) > 0, []string{AuthForward}},
		{"user-header", c.UserHeader != auth.UserHeader, []string{AuthForward, AuthHeader}},
		{"trusted-proxy", len(c.TrustedProxy) > 0, []string{AuthForward, AuthHeader}},
	} {
		if flag.isSet && !slices.Contains(flag.modes, c.Auth) {
			errs.Add(flag.name, "requires --auth %s, but --auth is %s", strings.Join(flag.modes, " or "), c.Auth)
		}
	}
}

// untrustedListener returns advice if no value of --trusted-proxy can apply to clients of the public listener, and otherwise
// "". A listener of systemd may be a Unix socket or not.
func (c *AuthConfig) untrustedListener(listen string) string {
	socket, unix := unixsocket.Is(listen), slices.Contains(c.proxies, auth.UnixSocket)
	switch {
	case len(c.proxies) == 0 || listen == systemd.Address:
	case socket && !unix:
		return "clients of a Unix socket do not have an address; set --trusted-proxy unix: to trust the processes that can connect to it"
	case !socket && unix && len(c.proxies) == 1:
		return "unix: applies only to a Unix socket; set --trusted-proxy to the proxy's address"
	}
	return ""
}
