package admin

import (
	"cmp"
	"net/http"

	"github.com/labstack/echo/v4"

	"usercast/hub"
	"usercast/transport/admin/console"
)

// A Console provides what the page at / shows. Its functions must be safe for concurrent use.
type Console struct {
	// Stats returns a snapshot, which is encoded as JSON.
	Stats func() any
	// Tail opens a tail of a user or group for a client at a remote address. nil disables tails, which show payloads.
	Tail   func(of hub.Recipient, remote string) Tail
	Groups bool // whether groups are enabled
	// TopicSeparator is a character that a user id and a group name must not contain. Default ':'.
	TopicSeparator byte
	// Done is closed when the process stops. Streams then end, so that they do not delay the shutdown.
	Done <-chan struct{}
}

// MountConsole adds the console at /, and the routes that it requests behind a Guard: /api/stats and the tails.
func MountConsole(e *echo.Echo, c Console, tokens Tokens) {
	both := []string{http.MethodGet, http.MethodHead}
	e.Match(both, "/", page(http.StatusOK), signIn(tokens))
	s := &stats{take: c.Stats, done: c.Done, slots: make(slots, maxStatsStreams)}
	e.GET("/api/stats", s.get, tokens.Guard(), noStore)
	t := &tails{open: c.Tail, names: names{c.Groups, cmp.Or(c.TopicSeparator, ':')}, done: c.Done, slots: make(slots, maxTails)}
	e.GET("/api/users/:name/messages", t.get(hub.User), tokens.Guard(), noStore)
	e.GET("/api/groups/:name/messages", t.get(hub.Group), tokens.Guard(), noStore)
}

// signIn is the Guard of the page itself. A browser cannot send a token when a user opens the address. A client without
// a token therefore receives the page with status 401, and the page asks for the token. The page does not contain data
// of the hub.
func signIn(tokens Tokens) echo.MiddlewareFunc {
	guard := tokens.Guard()
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		guarded := guard(next)
		return func(c echo.Context) error {
			if tokens.Admin() != "" && c.Request().Header.Get("Authorization") == "" {
				c.Response().Header().Set("WWW-Authenticate", "Bearer")
				return page(http.StatusUnauthorized)(c)
			}
			return guarded(c)
		}
	}
}

// page serves the console.
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

// noStore returns middleware that disables caching of responses.
func noStore(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set("Cache-Control", "no-store")
		return next(c)
	}
}
