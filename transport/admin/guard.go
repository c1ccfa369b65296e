package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"usercast/internal/loopback"
	"usercast/internal/unixsocket"
)

// Guard returns middleware that requires the bearer token. With an empty token, it accepts only requests from loopback or a Unix socket
// that were not forwarded by a proxy and whose Host is loopback: with DNS rebinding, a page of another site can reach a
// loopback listener under its own host name. It calls current for each request, because the token can change.
func Guard(current func() string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r, token := c.Request(), current()
			switch {
			case isCrossSite(r):
				// A page of another site cannot read the response, but could cause load, for example with an image that
				// requests a profile.
				return echo.NewHTTPError(http.StatusForbidden, "cross-site requests are not allowed")
			case token == "" && !((loopback.IsHost(r.RemoteAddr) || r.RemoteAddr == unixsocket.Peer) && loopback.IsHost(r.Host) && !forwarded(r)):
				return echo.NewHTTPError(http.StatusForbidden, "only requests from this machine to a loopback address are allowed; set --admin-token-file to allow others")
			case token != "" && !hasBearer(r, token):
				c.Response().Header().Set("WWW-Authenticate", "Bearer")
				return echo.NewHTTPError(http.StatusUnauthorized, "missing or invalid admin token")
			}
			return next(c)
		}
	}
}

// forwarded reports whether a proxy has forwarded the request. Not every proxy sets these headers, so a proxy on this
// machine must not route to this listener without a token.
func forwarded(r *http.Request) bool {
	for name := range r.Header {
		if name == "Forwarded" || name == "Via" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") {
			return true
		}
	}
	return false
}

// isCrossSite reports whether a page of another origin sent the request. Browsers set Sec-Fetch-Site (W3C Fetch Metadata),
// older ones only Origin; other clients set neither.
func isCrossSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "":
		origin := r.Header.Get("Origin")
		u, err := url.Parse(origin)
		return origin != "" && (err != nil || u.Host != r.Host)
	case "none", "same-origin":
		return false
	}
	return true
}

// hasBearer compares hashes in constant time, so that timing reveals neither the token nor its length.
func hasBearer(r *http.Request, token string) bool {
	headers := r.Header.Values("Authorization")
	if len(headers) != 1 {
		return false
	}
	scheme, given, _ := strings.Cut(headers[0], " ")
	want, got := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}
