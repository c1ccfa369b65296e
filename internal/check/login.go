package check

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"usercast/auth"
	"usercast/internal/app"
	"usercast/internal/finding"
)

// A login authenticates requests as the hub does.
type login struct {
	hub     *app.HubConfig
	timeout time.Duration
}

// isRemote reports whether --auth sends requests to another server.
func (l *login) isRemote() bool {
	c := l.hub
	return c.Auth == app.AuthForward && c.ForwardTo() != nil || c.Auth == app.AuthJWT && c.JWTJWKSURL != ""
}

// authenticate passes a request to the hub's own authenticator.
func (l *login) authenticate(ctx context.Context, r *http.Request) (auth.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	authn, err := l.hub.Open(slog.New(slog.DiscardHandler)) // what matters of the log is in the error, too
	if err != nil {
		return auth.Identity{}, err
	}
	if authn.Close != nil {
		defer authn.Close()
	}
	return authn.Authenticate(r.WithContext(ctx))
}

// asBrowser is a browser's request for target as the hub gets it: with https, either over TLS or
// from a trusted proxy that says so in X-Forwarded-Proto. The address is this machine's.
func asBrowser(target *url.URL, header http.Header) *http.Request {
	r := &http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: header, RemoteAddr: "127.0.0.1:1"}
	if target.Scheme == "https" {
		r.TLS = new(tls.ConnectionState)
	}
	return r
}

// inspect reports how a request without credentials is authenticated. target is --url, or nil.
func (l *login) inspect(ctx context.Context, target *url.URL, report finding.Report) {
	c := l.hub
	if c.Auth == app.AuthJWT {
		l.inspectKeySet(ctx, report)
		return
	}
	where := (&url.URL{Scheme: c.ForwardTo().Scheme, Host: c.ForwardTo().Host, Path: c.ForwardTo().Path}).String()
	redirected := "let the app answer 401 to this request, which asks for JSON"
	if target == nil {
		redirected += "; if it only forces HTTPS, run check with --url https://…"
		target = &url.URL{Scheme: "http", Host: c.ForwardTo().Host, Path: c.Path}
	}
	start := time.Now()
	who, err := l.authenticate(ctx, asBrowser(target, http.Header{}))
	took := time.Since(start)
	if target.Scheme == "https" && c.TLSCert == "" && len(c.Proxies()) == 0 && !errors.Is(err, auth.ErrRedirected) {
		// The hub gets this request in cleartext, from a proxy that it does not trust.
		inClear := *target
		inClear.Scheme = "http"
		if _, err := l.authenticate(ctx, asBrowser(&inClear, http.Header{})); errors.Is(err, auth.ErrRedirected) {
			report.Warn("login-proto", "--trusted-proxy <address of the proxy>", "%s redirects to https:// because this hub tells it that browsers use http://", where)
			return
		}
	}
	switch {
	case err == nil:
		report.Fail("login-everybody", "let the app answer 401 to whoever is not logged in", "%s says that a request without any cookie is user %q: everybody would read this user's messages", where, who.User)
	case errors.Is(err, auth.ErrRedirected):
		report.Warn("login-redirect", redirected, "%s answers with a redirect to whoever is not logged in: it counts as 401, and as a mistake; an app that forces HTTPS does so to everybody", where)
	case errors.Is(err, auth.ErrUnauthorized), errors.Is(err, auth.ErrForbidden):
		report.OK("login-app", "%s answers, and says no to who is not logged in", where)
		l.inspectTime(took, report)
	default:
		report.Fail("login-app", "is the app running, and its session check at this address? Until then browsers are told to come back later", "%s does not say who is asking: %v", where, err)
	}
}

// inspectTime reports how long a session check took, and what follows for many concurrent ones.
func (l *login) inspectTime(took time.Duration, report finding.Report) {
	c := l.hub
	if took > c.AuthTimeout.T/2 {
		report.Warn("login-slow", "make the session check faster, or raise --auth-timeout", "a session check without cookies took %v, more than half of --auth-timeout (%v): under load it will time out", took.Round(time.Millisecond), c.AuthTimeout.T)
		return
	}
	report.OK("login-slow", "a session check without cookies took %v; the number of concurrent checks adapts to the app, up to %d (--auth-concurrency)", took.Round(time.Millisecond), c.AuthConcurrency.T)
}

// inspectKeySet reports whether the JWK set can be fetched, which a token with an unknown key causes.
func (l *login) inspectKeySet(ctx context.Context, report finding.Report) {
	part := base64.RawURLEncoding.EncodeToString
	token := part([]byte(`{"alg":"RS256","kid":"usercast-check"}`)) + "." + part([]byte(`{}`)) + "." + part([]byte{0})
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: l.hub.Path}, Header: http.Header{"Authorization": {"Bearer " + token}}}
	if _, err := l.authenticate(ctx, r); errors.Is(err, auth.ErrUnauthorized) {
		report.OK("login-keys", "the key set of --jwt-jwks-url can be fetched")
	} else {
		report.Fail("login-keys", "is the login service running, and at this address? Until then browsers are told to come back later", "--jwt-jwks-url: %v", err)
	}
}

// userOf authenticates a request with these headers, as the hub does. unknown says why the user is not known.
func (l *login) userOf(ctx context.Context, target *url.URL, header http.Header) (who auth.Identity, unknown string) {
	switch l.hub.Auth {
	case app.AuthHeader:
		return who, "only the proxy knows whose stream this is"
	case app.AuthJWT, app.AuthForward, app.AuthInsecure:
	default:
		return who, "without --auth nobody knows whose stream this is"
	}
	who, err := l.authenticate(ctx, asBrowser(target, header))
	if err == nil {
		err = auth.CheckUser(who.User, l.hub.BroadcastUser)
	}
	if err != nil {
		return auth.Identity{}, "whose stream this is could not be found out (" + err.Error() + ")"
	}
	if who.Topics != nil && len(who.Topics) == 0 {
		return auth.Identity{}, "this user may see no topic at all"
	}
	return who, ""
}

// hint is how a request is authenticated with each mode.
func (l *login) hint() string {
	const copied = " of a user to try with, as a browser that is logged in sends it (developer tools, network)"
	switch l.hub.Auth {
	case app.AuthInsecure:
		return "--url …?user=<id>"
	case app.AuthJWT:
		return "--header 'Cookie: " + l.hub.JWTCookie + "=…'" + copied
	}
	return "--header 'Cookie: …'" + copied
}
