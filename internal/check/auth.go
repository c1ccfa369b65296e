package check

import (
	"net"
	"net/netip"
	"net/url"
	"time"

	"usercast/internal/app"
	"usercast/internal/finding"
	"usercast/internal/flags"
	"usercast/internal/loopback"
)

// inspectAuth reports risks of the authentication.
func inspectAuth(c *app.HubConfig, report finding.Report) {
	if c.Auth == app.AuthInsecure {
		report.Warn("config-insecure", "--auth forward, jwt or header before others can reach it", "--auth insecure believes ?user=<id>: whoever reaches the hub, through a proxy too, reads any user's messages")
	} else if c.AuthInsecureAnywhere {
		report.Note("config-unused", "remove it", "--auth-insecure-anywhere does nothing with --auth %s", c.Auth)
	}
	if c.Auth != app.AuthForward && (c.AuthCache.T != 10*time.Second || c.AuthConcurrency.T != 32) {
		report.Note("config-unused", "remove them", "--auth-cache and --auth-concurrency do nothing with --auth %s", c.Auth)
	}
	if c.Auth == app.AuthJWT {
		inspectTokens(c, report)
	}
	if c.ForwardTo() != nil && isListener(c, c.ForwardTo()) {
		report.Fail("config-forward-self", "give the URL of the app's session check", "--forward-url leads to this hub's own listener: it would ask itself")
	}
	for _, p := range c.Proxies() {
		switch wide := p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 32; {
		case p.Bits() == 0:
			report.Fail("config-trusted-proxy", "--trusted-proxy <address of the proxy>", "--trusted-proxy %v believes everybody: whoever reaches the hub says who he is", p)
		case wide && !flags.IsLoopback(c.Listen):
			report.Warn("config-trusted-proxy", "--trusted-proxy <address of the proxy>", "--trusted-proxy %v believes a great many, and %s is open to other machines", p, c.Listen)
		}
	}
}

// inspectTokens reports risks of --auth jwt.
func inspectTokens(c *app.HubConfig, report finding.Report) {
	switch c.JWTClaim {
	case "exp", "iat", "nbf", "jti", "iss", "aud":
		report.Warn("config-jwt-claim", "--jwt-claim sub, or the claim that has the user's id", "--jwt-claim %s says nothing of a user", c.JWTClaim)
	}
	if n := len(c.Keys().Secret); n > 0 && n < 32 {
		report.Warn("config-jwt-secret", "openssl rand -base64 48", "the jwt secret has %d bytes and may be guessed; 32 random ones are the least", n)
	}
	if u, err := url.Parse(c.JWTJWKSURL); err == nil && u.Scheme == "http" && !loopback.IsHost(u.Host) {
		report.Warn("config-jwks", "https://", "--jwt-jwks-url is fetched in clear: whoever stands between signs tokens")
	}
	if c.JWTQuery {
		report.Note("config-jwt-query", "the cookie "+c.JWTCookie+" where you can", "--jwt-query: tokens in URLs are written into the logs of proxies")
	}
	if c.JWTJWKSURL != "" && c.JWTAudience == "" {
		report.Note("config-jwt-audience", "--jwt-audience <what your tokens have>", "without --jwt-audience any token of that login service opens streams, those for other apps too")
	}
}

// isListener reports whether a URL is that of the public or the admin listener.
func isListener(c *app.HubConfig, u *url.URL) bool {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	local := u.Hostname() == "localhost"
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		local = ip.IsLoopback() || ip.IsUnspecified()
	}
	for _, address := range []string{c.Listen, c.AdminListen} {
		if host, p, err := net.SplitHostPort(address); err == nil && p == port && (local || host == u.Hostname()) {
			return true
		}
	}
	return false
}
