package admin

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/labstack/echo/v4"
)

// Guard lets a request through that has the bearer token. With an empty token it
// lets loopback peers through that ask for themselves and whose Host is loopback too: a page of another site
// may reach a loopback listener under a name of its own (DNS rebinding).
func Guard(token string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			switch {
			case token == "" && !(isLoopback(r.RemoteAddr) && isLoopback(r.Host) && !forwarded(r)):
				return echo.NewHTTPError(http.StatusForbidden, "only this machine may ask, at a loopback address; set --admin-token-file to ask from elsewhere")
			case token != "" && !hasBearer(r, token):
				c.Response().Header().Set("WWW-Authenticate", "Bearer")
				return echo.NewHTTPError(http.StatusUnauthorized, "the admin token is missing or wrong")
			}
			return next(c)
		}
	}
}

// forwarded reports whether a proxy says that it asks for somebody else. Not every
// proxy says so: one on this machine must not lead here without a token.
func forwarded(r *http.Request) bool {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "Via"} {
		if r.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

func hasBearer(r *http.Request, token string) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare([]byte(given), []byte(token)) == 1
}

// isLoopback takes an address with or without port.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.Trim(address, "[]")
	}
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}
