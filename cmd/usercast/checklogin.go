package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"usercast/auth"
	"usercast/internal/advice"
	"usercast/internal/app"
	"usercast/internal/flags"
	"usercast/transport/admin"
)

// asksOthers reports whether --auth needs somebody else who answers.
func (c *checkCmd) asksOthers() bool {
	return c.Auth == app.AuthForward && c.ForwardTo() != nil || c.Auth == app.AuthJWT && c.JWTJWKSURL != ""
}

// ask lets the hub's own authenticator look at a request.
func (c *checkCmd) ask(ctx context.Context, r *http.Request) (auth.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout.T)
	defer cancel()
	authn, err := c.Open(slog.New(slog.DiscardHandler)) // all that matters of the log comes back as an error, too
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

// strangers asks for somebody who is not logged in. target is --url, or nil.
func (c *checkCmd) strangers(ctx context.Context, target *url.URL, tell advice.Tell) {
	if c.Auth == app.AuthJWT {
		c.strangeToken(ctx, tell)
		return
	}
	where := (&url.URL{Scheme: c.ForwardTo().Scheme, Host: c.ForwardTo().Host, Path: c.ForwardTo().Path}).String()
	redirected := "let the app answer 401 to this request, which asks for JSON"
	if target == nil {
		redirected += "; if it only forces HTTPS, run check with --url https://…"
		target = &url.URL{Scheme: "http", Host: c.ForwardTo().Host, Path: c.Path}
	}
	start := time.Now()
	who, err := c.ask(ctx, asBrowser(target, http.Header{}))
	took := time.Since(start)
	if target.Scheme == "https" && c.TLSCert == "" && len(c.Proxies()) == 0 && !errors.Is(err, auth.ErrRedirected) {
		// The hub gets this request in cleartext, from a proxy that it does not trust.
		inClear := *target
		inClear.Scheme = "http"
		if _, err := c.ask(ctx, asBrowser(&inClear, http.Header{})); errors.Is(err, auth.ErrRedirected) {
			tell.Warn("login-proto", "--trusted-proxy <address of the proxy>", "%s redirects to https:// because this hub tells it that browsers use http://", where)
			return
		}
	}
	switch {
	case err == nil:
		tell.Fail("login-everybody", "let the app answer 401 to whoever is not logged in", "%s says that a request without any cookie is user %q: everybody would read this user's messages", where, who.User)
	case errors.Is(err, auth.ErrRedirected):
		tell.Warn("login-redirect", redirected, "%s answers with a redirect to whoever is not logged in: it counts as 401, and as a mistake; an app that forces HTTPS does so to everybody", where)
	case errors.Is(err, auth.ErrUnauthorized), errors.Is(err, auth.ErrForbidden):
		tell.OK("login-app", "%s answers, and says no to who is not logged in", where)
		c.pace(took, tell)
	default:
		tell.Fail("login-app", "is the app running, and its session check at this address? Until then browsers are told to come back later", "%s does not say who is asking: %v", where, err)
	}
}

// pace reports what a session check took, and what follows for many at once.
func (c *checkCmd) pace(took time.Duration, tell advice.Tell) {
	if took > c.AuthTimeout.T/2 {
		tell.Warn("login-slow", "make the session check faster, or raise --auth-timeout", "a session check without cookies took %v, more than half of --auth-timeout (%v): under load it will time out", took.Round(time.Millisecond), c.AuthTimeout.T)
		return
	}
	tell.OK("login-slow", "a session check without cookies took %v; the number of concurrent checks adapts to the app, up to %d (--auth-concurrency)", took.Round(time.Millisecond), c.AuthConcurrency.T)
}

// strangeToken asks with a token whose key nobody has: it makes the hub fetch those that there
// are.
func (c *checkCmd) strangeToken(ctx context.Context, tell advice.Tell) {
	part := base64.RawURLEncoding.EncodeToString
	token := part([]byte(`{"alg":"RS256","kid":"usercast-check"}`)) + "." + part([]byte(`{}`)) + "." + part([]byte{0})
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: c.Path}, Header: http.Header{"Authorization": {"Bearer " + token}}}
	if _, err := c.ask(ctx, r); errors.Is(err, auth.ErrUnauthorized) {
		tell.OK("login-keys", "the key set of --jwt-jwks-url can be fetched")
	} else {
		tell.Fail("login-keys", "is the login service running, and at this address? Until then browsers are told to come back later", "--jwt-jwks-url: %v", err)
	}
}

// whose is the user of the stream: as told, or as the hub itself finds out; none when nobody
// knows, and why.
func (c *checkCmd) whose(ctx context.Context, target *url.URL, header http.Header) (who auth.Identity, unknown string) {
	if c.User != "" {
		return auth.Identity{User: c.User}, ""
	}
	switch c.Auth {
	case app.AuthHeader:
		return who, "only the proxy knows whose stream this is"
	case app.AuthJWT, app.AuthForward, app.AuthInsecure:
	default:
		return who, "without --auth nobody knows whose stream this is"
	}
	who, err := c.ask(ctx, asBrowser(target, header))
	if err == nil {
		err = auth.CheckUser(who.User, c.BroadcastUser)
	}
	if err != nil {
		return auth.Identity{}, "whose stream this is could not be found out (" + err.Error() + ")"
	}
	if who.Topics != nil && len(who.Topics) == 0 {
		return auth.Identity{}, "this user may see no topic at all"
	}
	return who, ""
}

// streamsOf asks the admin listener of the hub how many streams a user has there.
func (c *checkCmd) streamsOf(ctx context.Context, user string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+flags.Dialable(c.AdminListen)+"/api/users/"+url.PathEscape(user), nil)
	if err != nil {
		return 0, err
	}
	if c.AdminTokenFile != "" {
		token, err := flags.ReadSecret(c.AdminTokenFile)
		if err != nil {
			return 0, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := asker.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var here struct{ Streams []admin.Stream }
	if err := json.NewDecoder(answer.Body).Decode(&here); err != nil || answer.StatusCode != http.StatusOK {
		return 0, errors.New("the admin listener does not say")
	}
	return len(here.Streams), nil
}

// logIn is how to get in with each mode.
func (c *checkCmd) logIn() string {
	const copied = " of a user to try with, as a browser that is logged in sends it (developer tools, network)"
	switch c.Auth {
	case app.AuthInsecure:
		return "--url …?user=<id>"
	case app.AuthJWT:
		return "--header 'Cookie: " + c.JWTCookie + "=…'" + copied
	}
	return "--header 'Cookie: …'" + copied
}
