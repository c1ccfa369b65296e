package admin

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"usercast/transport/admin/console"
)

// Console is what the page at / shows. The funcs are called from many goroutines.
type Console struct {
	// Stats takes a snapshot of everything, for JSON to say.
	Stats func() any
	// Tail opens a tail of a user for whoever asks from a remote address; nil: tails are
	// switched off, because they show payloads.
	Tail func(user, remote string) Tail
	// Done is closed when the process stops: streams end then, lest they hold it up.
	Done <-chan struct{}
}

// MountConsole serves the console at /, and behind the guard what it asks: /api/stats
// and the tails.
func MountConsole(e *echo.Echo, c Console, token func() string) {
	both := []string{http.MethodGet, http.MethodHead}
	e.Match(both, "/", page(http.StatusOK), signIn(token))
	s := &stats{take: c.Stats, done: c.Done, places: make(places, maxStatsStreams)}
	e.GET("/api/stats", s.get, Guard(token), noStore)
	t := &tails{open: c.Tail, done: c.Done, places: make(places, maxTails)}
	e.GET("/api/users/:user/messages", t.get, Guard(token), noStore)
}

// signIn is Guard for the page itself. A browser cannot send a token with the address
// that one opens, so who has none is told "401" by the page, which asks for it. It holds
// nothing of the hub's.
func signIn(token func() string) echo.MiddlewareFunc {
	guard := Guard(token)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		guarded := guard(next)
		return func(c echo.Context) error {
			if token() != "" && c.Request().Header.Get("Authorization") == "" {
				c.Response().Header().Set("WWW-Authenticate", "Bearer")
				return page(http.StatusUnauthorized)(c)
			}
			return guarded(c)
		}
	}
}

// page answers with the console.
func page(status int) echo.HandlerFunc {
	return func(c echo.Context) error {
		p := console.Get()
		h := c.Response().Header()
		h.Set("Content-Security-Policy", p.Policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		return c.HTMLBlob(status, p.Body)
	}
}

// noStore keeps answers out of caches.
func noStore(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set("Cache-Control", "no-store")
		return next(c)
	}
}
