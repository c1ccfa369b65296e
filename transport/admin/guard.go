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

// Tokens are the bearer tokens of the admin listener. An empty one is not configured and admits nothing. The functions are called
// for each request, because tokens can change; they must be safe for concurrent use.
type Tokens struct {
	Admin func() string // admits to everything
	API   func() string // admits to what an app needs: publishing, position and presence
}

// Guard returns middleware that requires the admin token. Without one, it accepts only requests from loopback or a Unix socket
// that were not forwarded by a proxy and whose Host is loopback: with DNS rebinding, a page of another site can reach a
// loopback listener under its own host name.
func (t Tokens) Guard() echo.MiddlewareFunc {
	return guard("admin token", "--admin-token-file", t.Admin)
}

// GuardApp is Guard for what an app needs: it requires the admin token or the API token.
func (t Tokens) GuardApp() echo.MiddlewareFunc {
	return guard("token", "--api-token-file or --admin-token-file", t.Admin, t.API)
}

// guard requires one of the tokens that are configured.
func guard(name, flag string, current ...func() string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r, tokens := c.Request(), make([]string, 0, len(current))
			for _, token := range current {
				if token := token(); token != "" {
					tokens = append(tokens, token)
				}
			}
			switch {
			case isCrossSite(r):
				// A page of another site cannot read the response, but could cause load, for example with an image that
				// requests a profile.
				return echo.NewHTTPError(http.StatusForbidden, "cross-site requests are not allowed")
			case len(tokens) == 0 && !((loopback.IsHost(r.RemoteAddr) || r.RemoteAddr == unixsocket.Peer) && loopback.IsHost(r.Host) && !forwarded(r)):
				return echo.NewHTTPError(http.StatusForbidden, "only requests from this machine to a loopback address are allowed; set "+flag+" to allow others")
			case len(tokens) > 0 && !hasBearer(r, tokens):
				c.Response().Header().Set("WWW-Authenticate", "Bearer")
				return echo.NewHTTPError(http.StatusUnauthorized, "missing or invalid "+name)
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

// hasBearer reports whether the request has one of the tokens. It compares hashes in constant time, and with all tokens, so
// that timing reveals neither a token nor its length.
func hasBearer(r *http.Request, tokens []string) bool {
	headers := r.Header.Values("Authorization")
	if len(headers) != 1 {
		return false
	}
	scheme, given, _ := strings.Cut(headers[0], " ")
	got, equal := sha256.Sum256([]byte(given)), 0
	for _, token := range tokens {
		want := sha256.Sum256([]byte(token))
		equal |= subtle.ConstantTimeCompare(got[:], want[:])
	}
	return equal == 1 && strings.EqualFold(scheme, "Bearer")
}
