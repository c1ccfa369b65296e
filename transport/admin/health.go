package admin

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// A Status is the readiness of the process.
type Status struct {
	Ready bool       `json:"ready"`
	Why   string     `json:"why,omitempty"` // why it is not ready
	Feeds []FeedLink `json:"feeds"`
}

// A FeedLink is the state of the connection to one Redis.
type FeedLink struct {
	Feed      string `json:"feed"`
	Redis     string `json:"redis"`
	Connected bool   `json:"connected"`
}

// MountHealth adds /livez and /readyz. With verbose, they include the state of Redis, which does not belong on a public
// listener. status must be safe for concurrent use.
//
// An unavailable Redis does not make a hub unready: a load balancer without back ends returns 503, which ends every
// EventSource permanently.
func MountHealth(e *echo.Echo, status func() Status, verbose bool) {
	both := []string{http.MethodGet, http.MethodHead}
	e.Match(both, "/livez", func(c echo.Context) error {
		return c.String(http.StatusOK, "ok\n")
	})
	e.Match(both, "/readyz", func(c echo.Context) error {
		s := status()
		code, word := http.StatusOK, "ok\n"
		if !s.Ready {
			code, word = http.StatusServiceUnavailable, "not ready\n"
		}
		c.Response().Header().Set("Cache-Control", "no-store")
		if verbose {
			return c.JSON(code, s)
		}
		return c.String(code, word)
	})
}
