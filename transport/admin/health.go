package admin

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// A Status says how the process is.
type Status struct {
	Ready bool       `json:"ready"`
	Why   string     `json:"why,omitempty"` // why it is not ready
	Feeds []FeedLink `json:"feeds"`
}

// A FeedLink is the link to one Redis.
type FeedLink struct {
	Feed      string `json:"feed"`
	Redis     string `json:"redis"`
	Connected bool   `json:"connected"`
}

// MountHealth serves /livez and /readyz. The verbose form tells what it knows of
// Redis, which is nobody's business on a public listener.
//
// A Redis that is away does not make a hub unready: a load balancer without back
// ends answers 503, and that ends every EventSource for good.
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
