package check

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"usercast/auth"
	"usercast/internal/app"
	"usercast/internal/finding"
	"usercast/internal/flags"
	"usercast/internal/loopback"
	"usercast/internal/systemd"
	"usercast/internal/unixsocket"
)

// inspectAuth reports risks of the authentication.
func inspectAuth(c *app.HubConfig, report finding.Report) {
	if c.Auth == app.AuthInsecure {
		report.Warn("config-insecure", "use --auth forward, jwt or header before other hosts can reach the hub",
			"--auth insecure trusts ?user=<id>: any client that can reach the hub, directly or through a proxy, can read any user's messages")
	} else if c.AuthInsecureAnywhere {
		report.Note("config-unused", "remove it", "--auth-insecure-anywhere is ignored with --auth %s", c.Auth)
	}
	if c.Auth != app.AuthForward && (c.AuthCache.T != 10*time.Second || c.AuthConcurrency.T != 32) {
		report.Note("config-unused", "remove them", "--auth-cache and --auth-concurrency are ignored with --auth %s", c.Auth)
	}
	if c.Auth == app.AuthHeader && c.GroupPrefix != "" {
		report.Note("config-groups-header", "let the proxy remove "+auth.GroupsHeader+" from requests, or set it in each request",
			"groups are enabled, so the proxy must not pass on %s of a browser: the browser could choose its groups", auth.GroupsHeader)
	}
	if c.Auth == app.AuthJWT {
		inspectTokens(c, report)
	}
	if c.ForwardTo() != nil && isListener(c, c.ForwardTo()) {
		report.Fail("config-forward-self", "set it to the URL of the app's session check", "--forward-url points to this hub's own listener: the hub would send session checks to itself")
	}
	inspectSocketTrust(c, report)
	for _, p := range c.Proxies() {
		switch wide := p.IsValid() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 32; {
		case p.Bits() == 0:
			report.Fail("config-trusted-proxy", "use --trusted-proxy <address of the proxy>", "--trusted-proxy %v trusts every address: any client can choose its own user id", p)
		case wide && !flags.IsLoopback(c.Listen):
			report.Warn("config-trusted-proxy", "use --trusted-proxy <address of the proxy>", "--trusted-proxy %v trusts a very large network, and %s is reachable from other hosts", p, c.Listen)
		}
	}
}

// inspectSocketTrust reports whether the hub trusts the headers that it receives over a Unix socket.
func inspectSocketTrust(c *app.HubConfig, report finding.Report) {
	socket, err := unixsocket.Parse(c.Listen)
	listens, trusts := err == nil, slices.Contains(c.Proxies(), auth.UnixSocket)
	const fix = "set --trusted-proxy unix:"
	switch {
	case listens && !trusts && c.Auth == app.AuthHeader:
		report.Fail("config-trusted-proxy", fix, "every request is rejected: %s is a Unix socket, and --trusted-proxy does not contain unix:", socket.Path)
	case listens && !trusts && c.Auth == app.AuthForward:
		report.Warn("config-trusted-proxy", fix, "%s is a Unix socket, and the X-Forwarded-* headers of its clients are ignored: the app does not receive the browser's address, and receives http as the scheme", socket.Path)
	case listens && trusts && socket.Mode&0o002 != 0:
		report.Warn("config-trusted-proxy", "use ?mode=660, and add the proxy's user to the hub's group", "every user of this host can connect to %s, and its headers are trusted", socket.Path)
	case !listens && trusts && c.Listen != systemd.Address: // which may be a Unix socket
		report.Note("config-unused", "remove it", "--trusted-proxy unix: is ignored because --listen is not a Unix socket")
	}
}

// inspectTokens reports risks of --auth jwt.
func inspectTokens(c *app.HubConfig, report finding.Report) {
	switch c.JWTClaim {
	case "exp", "iat", "nbf", "jti", "iss", "aud":
		report.Warn("config-jwt-claim", "use --jwt-claim sub, or the claim with the user id", "--jwt-claim %s does not identify a user", c.JWTClaim)
	}
	for _, address := range c.JWTJWKSURL {
		if u, err := url.Parse(address); err == nil && u.Scheme == "http" && !loopback.IsHost(u.Host) {
			report.Warn("config-jwks", "use an https:// URL", "--jwt-jwks-url %s is fetched without TLS: an attacker on the network path can forge tokens", withoutSecrets(u))
		}
	}
	if c.JWTQuery {
		report.Note("config-jwt-query", "prefer the cookie "+c.JWTCookie, "--jwt-query: tokens in URLs end up in proxy logs")
	}
	switch {
	case len(c.JWTJWKSURL) == 0:
	case len(c.JWTAudience)+len(c.JWTAuthorizedParty) == 0:
		report.Note("config-jwt-audience", "use --jwt-audience <aud of your tokens>, or --jwt-authorized-party <azp> for tokens without aud",
			"without --jwt-audience, any token of that identity provider opens streams, including tokens for other apps")
	case len(c.JWTIssuer) == 0:
		report.Note("config-jwt-issuer", "use --jwt-issuer <iss of your tokens>", "without --jwt-issuer, tokens of other tenants of an identity provider that share its keys are accepted")
	}
}

// isListener reports whether u is the URL of the public or the admin listener.
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
