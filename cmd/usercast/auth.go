package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"usercast/auth"
)

// Defaults of --jwt-claim and --jwt-cookie.
const (
	defaultClaim  = "sub"
	defaultCookie = "usercast"
)

// The modes of --auth.
const (
	authJWT      = "jwt"
	authForward  = "forward"
	authHeader   = "header"
	authInsecure = "insecure"
)

// authConfig says how the hub finds out who is asking.
type authConfig struct {
	Auth                 string   `placeholder:"MODE" help:"Who is asking. jwt: a signed token says; forward: the app is asked; header: a proxy says; insecure: believe ?user=<id>. Required."`
	AuthInsecureAnywhere bool     `help:"Allow --auth insecure on a listener that others can reach."`
	AuthTimeout          duration `default:"2s" placeholder:"DURATION" help:"With forward: how long the app may take to say who is asking; with jwt: the server of the keys, to hand them out (${default})."`

	ForwardURL      string   `placeholder:"URL" help:"With forward: where to ask the app, with the browser's cookies; 200 with the user's id in a header is a yes, 401 and 403 are a no."`
	AuthCache       duration `default:"10s" placeholder:"DURATION" help:"With forward: for how long a yes is believed; 0: not at all (${default})."`
	AuthConcurrency count    `default:"32" placeholder:"N" help:"With forward: maximum number of concurrent requests to the app; the hub sends fewer if the app is slow (${default})."`
	UserHeader      string   `default:"${user_header_default}" placeholder:"NAME" help:"With forward and header: the header with the user's id (${default})."`
	TrustedProxy    []string `placeholder:"CIDR" help:"With forward and header: network of a proxy whose headers are believed, such as 10.0.0.0/8; repeatable."`

	JWTSecretFile []string `name:"jwt-secret-file" placeholder:"FILE" help:"With jwt: secret for HS256, HS384 and HS512; or USERCAST_JWT_SECRET. Repeatable: each is believed, so that one can be replaced."`
	JWTKeyFile    string   `name:"jwt-key-file" placeholder:"FILE" help:"With jwt: public keys in PEM, for RS, PS, ES and EdDSA."`
	JWTJWKSURL    string   `name:"jwt-jwks-url" placeholder:"URL" help:"With jwt: where public keys are published as a JWK set."`
	JWTIssuer     string   `name:"jwt-issuer" placeholder:"ISS" help:"With jwt: what iss must be."`
	JWTAudience   string   `name:"jwt-audience" placeholder:"AUD" help:"With jwt: what must be in aud."`
	JWTClaim      string   `name:"jwt-claim" default:"${jwt_claim_default}" placeholder:"CLAIM" help:"With jwt: the claim with the user's id (${default})."`
	JWTCookie     string   `name:"jwt-cookie" default:"${jwt_cookie_default}" placeholder:"NAME" help:"With jwt: the cookie with the token (${default})."`
	JWTQuery      bool     `name:"jwt-query" help:"With jwt: ?token= may hold it, too. Proxies write it into their logs."`
	JWTAllowNoExp bool     `name:"jwt-allow-no-exp" help:"With jwt: a token may be without end."`

	settings *envFile // may hold the secret; nil: there is no file

	// Set by check.
	forwardURL *url.URL
	proxies    auth.Proxies
	keys       auth.JWTKeys
}

// A doorkeeper finds out who is asking.
type doorkeeper struct {
	authenticate auth.Authenticator
	forget       func(user string) // drops what is remembered of a user
	checks       func() auth.Stats // of the requests to the app; nil: the mode sends none
	close        func()            // answers those who still ask "not now"; more than once does no harm
	jwt          *auth.JWT         // or nil: its keys can be replaced
}

// check adds everything that is wrong with c on a public listener.
func (c *authConfig) check(k *checker, listen string) {
	switch c.Auth {
	case authJWT:
		c.checkJWT(k)
	case authForward:
		c.forwardURL = checkURL(k, "forward-url", c.ForwardURL, "http://127.0.0.1:3000/usercast/session")
	case authHeader:
		if len(c.TrustedProxy) == 0 {
			k.wrong("trusted-proxy", "--auth header believes a proxy: say which, such as 10.0.0.5 or 10.0.0.0/8")
		}
	case authInsecure:
		if !isLoopback(listen) && !c.AuthInsecureAnywhere {
			k.wrong("auth", "insecure lets anybody who reaches %s read any user's messages: listen on 127.0.0.1, or give --auth-insecure-anywhere", listen)
		}
	case "":
		k.wrong("auth", "say who may read what; there is no default. jwt: a signed token says who is asking; forward: the app is asked; header: a proxy in front says; insecure: believe ?user=<id>, for trying things out on this machine")
	default:
		k.wrong("auth", "%q is not a mode; there are jwt, forward, header and insecure", c.Auth)
	}
	c.checkUnused(k)
	if k.read("auth-timeout", c.AuthTimeout.err) && c.AuthTimeout.T <= 0 {
		k.wrong("auth-timeout", "must be more than 0")
	}
	k.notNegative("auth-cache", c.AuthCache)
	k.atLeast("auth-concurrency", c.AuthConcurrency.value, 1)
	if !isToken(c.UserHeader) {
		k.wrong("user-header", "%q is not the name of a header", c.UserHeader)
	} else if slices.Contains(takenHeaders, http.CanonicalHeaderKey(c.UserHeader)) {
		k.wrong("user-header", "%s means something else", c.UserHeader)
	}
	for _, network := range c.TrustedProxy {
		prefix, ok := parseNetwork(network)
		if !ok {
			k.wrong("trusted-proxy", "%q is not a network such as 10.0.0.0/8, or an address", network)
			continue
		}
		c.proxies = append(c.proxies, prefix)
	}
}

// parseNetwork reads a network, or an address for a network of one. IPv4 within IPv6 becomes
// IPv4: so peers are looked at.
func parseNetwork(s string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(ip, ip.BitLen())
	}
	if ip := prefix.Addr(); ip.Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(ip.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), true
}

// jwtSecretVariable is where the secret may be, instead of in a file. It is no flag: those
// can be read by everybody.
const jwtSecretVariable = "USERCAST_JWT_SECRET"

// checkJWT reads the keys.
func (c *authConfig) checkJWT(k *checker) {
	secret := c.settings.variable(jwtSecretVariable)
	sources := 0
	for _, given := range []bool{len(c.JWTSecretFile) > 0, secret != "", c.JWTKeyFile != "", c.JWTJWKSURL != ""} {
		if given {
			sources++
		}
	}
	if sources != 1 {
		k.wrong("auth", "jwt needs one of --jwt-secret-file (or %s), --jwt-key-file and --jwt-jwks-url, and no other", jwtSecretVariable)
		return
	}
	if c.JWTClaim == "" {
		k.wrong("jwt-claim", "must not be empty")
	}
	if !isToken(c.JWTCookie) {
		k.wrong("jwt-cookie", "%q is not the name of a cookie", c.JWTCookie)
	}
	if c.JWTJWKSURL != "" {
		checkURL(k, "jwt-jwks-url", c.JWTJWKSURL, "https://login.example/.well-known/jwks.json")
		return
	}
	source := "auth" // for the variable is no flag
	switch {
	case len(c.JWTSecretFile) > 0:
		source = "jwt-secret-file"
	case c.JWTKeyFile != "":
		source = "jwt-key-file"
	}
	var err error
	if c.keys, err = c.readKeys(c.settings); k.read(source, err) {
		_, err = auth.NewJWT(auth.JWTConfig{Secret: c.keys.Secret, OtherSecrets: c.keys.OtherSecrets, KeyPEM: c.keys.KeyPEM})
		k.read(source, err)
	}
}

// readKeys reads what tokens are signed with, where that is not a JWK set.
func (c *authConfig) readKeys(settings *envFile) (keys auth.JWTKeys, err error) {
	for i, file := range c.JWTSecretFile {
		secret, err := readSecret(file)
		switch {
		case err != nil:
			return auth.JWTKeys{}, err
		case i == 0:
			keys.Secret = []byte(secret)
		default:
			keys.OtherSecrets = append(keys.OtherSecrets, []byte(secret))
		}
	}
	switch {
	case keys.Secret != nil:
	case c.JWTKeyFile != "":
		keys.KeyPEM, err = os.ReadFile(c.JWTKeyFile)
	default:
		keys.Secret = []byte(settings.variable(jwtSecretVariable))
	}
	return keys, err
}

// checkUnused finds what only another mode reads, and is given: whoever gave it believes that
// it counts. Limits and times may be there for all modes.
func (c *authConfig) checkUnused(k *checker) {
	if c.Auth == "" {
		return
	}
	for _, flag := range []struct {
		name  string
		given bool
		modes []string
	}{
		{"jwt-secret-file", len(c.JWTSecretFile) > 0, []string{authJWT}},
		{"jwt-key-file", c.JWTKeyFile != "", []string{authJWT}},
		{"jwt-jwks-url", c.JWTJWKSURL != "", []string{authJWT}},
		{"jwt-issuer", c.JWTIssuer != "", []string{authJWT}},
		{"jwt-audience", c.JWTAudience != "", []string{authJWT}},
		{"jwt-claim", c.JWTClaim != defaultClaim, []string{authJWT}},
		{"jwt-cookie", c.JWTCookie != defaultCookie, []string{authJWT}},
		{"jwt-query", c.JWTQuery, []string{authJWT}},
		{"jwt-allow-no-exp", c.JWTAllowNoExp, []string{authJWT}},
		{"forward-url", c.ForwardURL != "", []string{authForward}},
		{"user-header", c.UserHeader != auth.UserHeader, []string{authForward, authHeader}},
		{"trusted-proxy", len(c.TrustedProxy) > 0, []string{authForward, authHeader}},
	} {
		if flag.given && !slices.Contains(flag.modes, c.Auth) {
			k.wrong(flag.name, "is for --auth %s, and does nothing with --auth %s", strings.Join(flag.modes, " and "), c.Auth)
		}
	}
}

// checkURL wants http or https.
func checkURL(k *checker, flag, text, example string) *url.URL {
	u, err := url.Parse(text)
	switch {
	case text == "":
		k.wrong(flag, "is needed, such as %s", example)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !isPort(u.Port()):
		k.wrong(flag, "is not a URL such as %s", example) // unquoted: it may hold a password
	case u.Fragment != "":
		k.wrong(flag, "has a fragment, which is never sent")
	default:
		return u
	}
	return nil
}

// isPort takes an empty one for that of the scheme.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

// takenHeaders are in requests and answers anyway, or hold what is never logged.
var takenHeaders = []string{
	"Accept", "Authorization", "Cache-Control", "Connection", "Content-Length", "Content-Type", "Cookie", "Date", "Host",
	"Last-Event-Id", "Origin", "Proxy-Authorization", "Referer", "Server", "Set-Cookie", "Transfer-Encoding", "User-Agent",
	http.CanonicalHeaderKey(auth.TopicsHeader),
}

// isToken reports whether s is one as in RFC 9110, section 5.6.2: the name of a header, or
// of a cookie.
func isToken(s string) bool {
	const marks = "!#$%&'*+-.^_`|~"
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(marks, r))
	})
}

// open is for a config that has passed check.
func (c *authConfig) open(log *slog.Logger) (doorkeeper, error) {
	d := doorkeeper{forget: func(string) {}, close: func() {}}
	switch c.Auth {
	case authJWT:
		j, err := auth.NewJWT(auth.JWTConfig{
			Secret:        c.keys.Secret,
			OtherSecrets:  c.keys.OtherSecrets,
			KeyPEM:        c.keys.KeyPEM,
			JWKSURL:       c.JWTJWKSURL,
			Issuer:        c.JWTIssuer,
			Audience:      c.JWTAudience,
			UserClaim:     c.JWTClaim,
			Cookie:        c.JWTCookie,
			Query:         c.JWTQuery,
			AllowNoExpiry: c.JWTAllowNoExp,
			Timeout:       c.AuthTimeout.T,
			Logger:        log,
		})
		if err != nil {
			return d, usageError{fmt.Errorf("--auth jwt: %w", err)}
		}
		d.authenticate, d.close, d.jwt = j.Authenticate, j.Close, j
	case authForward:
		f := auth.NewForward(auth.ForwardConfig{
			URL:         c.forwardURL,
			UserHeader:  c.UserHeader,
			Timeout:     c.AuthTimeout.T,
			Cache:       c.AuthCache.T,
			Concurrency: c.AuthConcurrency.T,
			Proxies:     c.proxies,
			Logger:      log,
		})
		d.authenticate, d.forget, d.close, d.checks = f.Authenticate, f.Forget, f.Close, f.Stats
	case authHeader:
		d.authenticate = auth.Header(c.UserHeader, c.proxies)
	case authInsecure:
		d.authenticate = auth.Insecure
	}
	return d, nil
}
