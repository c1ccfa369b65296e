package check

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/dustin/go-humanize/english"

	"usercast/auth"
	"usercast/internal/app"
	"usercast/internal/check/proxypath"
	"usercast/internal/finding"
)

// An authentication authenticates requests as the hub does.
type authentication struct {
	hub     *app.HubConfig
	timeout time.Duration
}

// isRemote reports whether --auth sends requests to another server.
func (a *authentication) isRemote() bool {
	c := a.hub
	return c.Auth == app.AuthForward && c.ForwardTo() != nil || c.Auth == app.AuthJWT && len(c.JWTJWKSURL) > 0
}

// authenticate passes a request to the hub's own authenticator.
func (a *authentication) authenticate(ctx context.Context, r *http.Request) (auth.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	authn, err := a.hub.Open(slog.New(slog.DiscardHandler)) // the error has the same information as the log
	if err != nil {
		return auth.Identity{}, err
	}
	if authn.Close != nil {
		defer authn.Close()
	}
	return authn.Authenticate(r.WithContext(ctx))
}

// asBrowser returns a browser's request for target as the hub receives it: with https, either over TLS or from a trusted
// proxy that sets X-Forwarded-Proto. The remote address is a loopback address. Without a User-Agent in header, it is the one of
// proxypath: some servers reject requests without one.
func asBrowser(target *url.URL, header http.Header) *http.Request {
	if header.Get("User-Agent") == "" {
		header = header.Clone()
		header.Set("User-Agent", proxypath.UserAgent)
	}
	r := &http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: header, RemoteAddr: "127.0.0.1:1"}
	if target.Scheme == "https" {
		r.TLS = new(tls.ConnectionState)
	}
	return r
}

// inspect reports how a request without credentials is authenticated, and whether one with header is answered in time. target is
// --url, or nil.
func (a *authentication) inspect(ctx context.Context, target *url.URL, header http.Header, report finding.Report) {
	c := a.hub
	if c.Auth == app.AuthJWT {
		for _, address := range c.JWTJWKSURL {
			a.inspectKeySet(ctx, address, report)
		}
		return
	}
	where := withoutSecrets(c.ForwardTo())
	redirected := "return 401 for this request, which asks for JSON"
	if target == nil {
		redirected += "; if the app only forces HTTPS, run check with --url https://…"
		target = &url.URL{Scheme: "http", Host: c.ForwardTo().Host, Path: c.Path}
	}
	start := time.Now()
	who, err := a.authenticate(ctx, asBrowser(target, http.Header{}))
	took := time.Since(start)
	if a.inspectHost(ctx, target, err, report) {
		return
	}
	if target.Scheme == "https" && c.TLSCert == "" && len(c.Proxies()) == 0 && !errors.Is(err, auth.ErrRedirected) {
		// The hub receives this request in cleartext, from a proxy that it does not trust.
		inClear := *target
		inClear.Scheme = "http"
		if _, err := a.authenticate(ctx, asBrowser(&inClear, http.Header{})); errors.Is(err, auth.ErrForcesHTTPS) {
			report.Warn("login-proto", "use --trusted-proxy <address of the proxy>", "%s redirects to https:// because this hub reports http:// as the scheme of the browser", where)
			return
		}
	}
	switch {
	case err == nil:
		report.Fail("login-everybody", "return 401 for unauthenticated requests", "%s accepts a request without cookies as user %q: anyone could read this user's messages", where, who.User)
	case errors.Is(err, auth.ErrRedirected):
		if hint := auth.Hint(err); hint != "" && !(errors.Is(err, auth.ErrForcesHTTPS) && target.Scheme == "http") { // with http, the app may be right
			redirected = hint
		}
		report.Warn("login-redirect", redirected, "%s redirects unauthenticated requests instead of returning 401; the hub treats redirects as 401, so an app that forces HTTPS rejects every request", where)
	case errors.Is(err, auth.ErrUnauthorized), errors.Is(err, auth.ErrForbidden):
		report.OK("login-app", "%s responds, and rejects unauthenticated requests", where)
		if host := cmp.Or(c.ForwardHost, c.ForwardTo().Host); errors.Is(err, auth.ErrForbidden) && target.Host == host {
			report.Note("login-forbidden", "if session checks of logged-in users also return 403, set --forward-host to the host name that browsers use; and return 401 for unauthenticated requests",
				"the app returns 403 to a request without cookies; a Rails app in production does that if it does not know the Host %s", host)
		}
		a.inspectTime(took, report)
		a.inspectSession(ctx, target, header, took, report)
	default:
		fix := "check that the app is running and that its session check is at this address"
		if hint := auth.Hint(err); hint != "" {
			fix = hint
		}
		report.Fail("login-app", fix+"; until then, browsers are asked to retry later", "authentication with %s failed: %v", where, err)
	}
}

// inspectHost reports whether the app rejects the Host header of the session check. The argument err is the result of a check
// without credentials. The evidence is the app's error page, or a check with the Host of target that returns 401 or a user.
func (a *authentication) inspectHost(ctx context.Context, target *url.URL, err error, report finding.Report) bool {
	if err == nil || errors.Is(err, auth.ErrUnauthorized) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	host := cmp.Or(a.hub.ForwardHost, a.hub.ForwardTo().Host)
	if target.Host != host {
		hub := *a.hub
		hub.ForwardHost = target.Host
		other := authentication{&hub, a.timeout}
		if _, err := other.authenticate(ctx, asBrowser(target, http.Header{})); err == nil || errors.Is(err, auth.ErrUnauthorized) {
			report.Fail("login-host", "use --forward-host "+target.Host, "the app rejects session checks with the Host %s, and accepts the Host %s", host, target.Host)
			return true
		}
	}
	if errors.Is(err, auth.ErrHostRejected) {
		report.Fail("login-host", auth.Hint(err), "the app does not accept session checks with the Host %s", host)
		return true
	}
	return false
}

// inspectSession reports a session check with these headers that times out. The app has answered one without credentials within
// the time took.
func (a *authentication) inspectSession(ctx context.Context, target *url.URL, header http.Header, took time.Duration, report finding.Report) {
	if header.Get("Cookie") == "" {
		return
	}
	if _, err := a.authenticate(ctx, asBrowser(target, header)); errors.Is(err, context.DeadlineExceeded) {
		report.Warn("login-session-slow", "let slow requests close the session (PHP: session_write_close), or let the session check read it without a lock",
			"the session check timed out with the cookies of --header, but took only %v without cookies: a slow request of the same session may hold its lock", took.Round(100*time.Microsecond))
	}
}

// inspectTime reports how long a session check took, and whether many concurrent checks would time out.
func (a *authentication) inspectTime(took time.Duration, report finding.Report) {
	c := a.hub
	if took > c.AuthTimeout.T/2 {
		report.Warn("login-slow", "make the session check faster, or raise --auth-timeout", "a session check without cookies took %v, more than half of --auth-timeout (%v): under load it will time out", took.Round(time.Millisecond), c.AuthTimeout.T)
		return
	}
	report.OK("login-slow", "a session check without cookies took %v; the number of concurrent checks adapts to the app, up to %d (--auth-concurrency)", took.Round(time.Millisecond), c.AuthConcurrency.T)
}

// inspectKeySet reports how many keys the key set at address has, and which of them the hub cannot use.
func (a *authentication) inspectKeySet(ctx context.Context, address string, report finding.Report) {
	u, err := url.Parse(address)
	if err != nil {
		return // reported with the configuration
	}
	name := withoutSecrets(u)
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	set, err := auth.FetchKeySet(ctx, address, a.hub.AuthTimeout.T)
	if err != nil {
		report.Fail("login-keys", "check that the identity provider is running and publishes its key set at this address; until then, browsers are asked to retry later", "--jwt-jwks-url %s: %v", name, err)
	} else {
		report.OK("login-keys", "%s has %s", name, english.Plural(set.Usable, "usable key", "usable keys"))
	}
	for _, k := range set.Ignored {
		report.Note("login-key-ignored", "ignore this unless tokens are signed with this key", "%s: the key %q is not used: %s", name, k.ID, k.Reason)
	}
}

// withoutSecrets returns a URL without a password and a query.
func withoutSecrets(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// userOf authenticates a request with these headers, as the hub does. unknown is the reason if the user is not known.
func (a *authentication) userOf(ctx context.Context, target *url.URL, header http.Header) (who auth.Identity, unknown string) {
	switch a.hub.Auth {
	case app.AuthHeader:
		return who, "only the proxy knows the user of this stream"
	case app.AuthJWT, app.AuthForward, app.AuthInsecure:
	default:
		return who, "the user of this stream is unknown without --auth"
	}
	who, err := a.identify(ctx, target, header)
	if err != nil {
		return auth.Identity{}, "the user of this stream could not be determined (" + err.Error() + ")"
	}
	if who.Topics != nil && len(who.Topics) == 0 {
		return auth.Identity{}, "this user is not allowed to see any topic"
	}
	return who, ""
}

// identify authenticates a request with these headers, and checks the user and the groups as the hub does.
func (a *authentication) identify(ctx context.Context, target *url.URL, header http.Header) (auth.Identity, error) {
	who, err := a.authenticate(ctx, asBrowser(target, header))
	if err == nil {
		err = auth.CheckUser(who.User, a.hub.BroadcastUser, a.hub.TopicSeparator.T)
	}
	if err == nil {
		err = auth.CheckGroups(who.Groups, a.hub.MaxGroups.T, a.hub.TopicSeparator.T)
	}
	return who, err
}

// rejectHint returns the hint in the log of the hub for a request with these headers, which the hub rejected with this error
// message. It returns "" if the reason is not known, or if the request may only lack credentials.
func (a *authentication) rejectHint(ctx context.Context, target *url.URL, header http.Header, message string) string {
	switch a.hub.Auth {
	case app.AuthJWT, app.AuthForward, app.AuthInsecure:
	default: // only the proxy knows the user
		return ""
	}
	_, err := a.identify(ctx, target, header)
	hasToken := a.hub.Auth == app.AuthJWT && (len(header) > 0 || target.Query().Has("token"))
	if err == nil || err.Error() != message || !hasToken && !errors.Is(err, auth.ErrBadUser) {
		return ""
	}
	return auth.Hint(err)
}

// hint returns the flags that authenticate a request in each mode.
func (a *authentication) hint() string {
	const copied = " of a test user, copied from a logged-in browser (developer tools, Network tab)"
	switch a.hub.Auth {
	case app.AuthInsecure:
		return "use --url …?user=<id>"
	case app.AuthJWT:
		if a.hub.JWTHeader != "" {
			return "use --header '" + a.hub.JWTHeader + ": …' with the token of a test user"
		}
		return "use --header 'Cookie: " + a.hub.JWTCookie + "=…'" + copied
	}
	return "use --header 'Cookie: …'" + copied + "; if sessions are tied to the browser, add its --header 'User-Agent: …'"
}
