package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"

	"github.com/labstack/echo/v4"
)

// NewEcho returns an echo app whose error responses are JSON: {"error":"one sentence"}.
func NewEcho() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		if c.Response().Committed {
			return
		}
		code, sentence := http.StatusInternalServerError, "internal server error"
		var he *echo.HTTPError
		if errors.As(err, &he) {
			code, sentence = he.Code, strings.ToLower(http.StatusText(he.Code))
			if s, ok := he.Message.(string); ok {
				sentence = s
			}
		}
		if he == echo.ErrNotFound { // not a route's own error, which says what does not exist
			sentence = "not found"
		}
		c.Response().Header().Set("Cache-Control", "no-store")
		respond(c, code, map[string]string{"error": sentence})
	}
	return e
}

// respond sends JSON that may contain an error.
func respond(c echo.Context, code int, value any) error {
	c.Response().Header().Set(echo.HeaderContentType, echo.MIMEApplicationJSON)
	c.Response().Header().Set(echo.HeaderXContentTypeOptions, "nosniff") // the body is not escaped for HTML
	c.Response().WriteHeader(code)
	body := json.NewEncoder(c.Response())
	body.SetEscapeHTML(false) // keeps commands with & or < ready to paste
	return body.Encode(value)
}

// Mount adds the routes of the admin listener: health, metrics, and profiles behind a Guard. The functions must be safe for
// concurrent use.
func Mount(e *echo.Echo, status func() Status, metrics http.Handler, tokens Tokens) {
	MountHealth(e, status, true)
	e.Match([]string{http.MethodGet, http.MethodHead}, "/metrics", echo.WrapHandler(metrics))

	profiles := e.Group("/debug/pprof", tokens.Guard())
	profiles.GET("/cmdline", cmdline)
	profiles.GET("/profile", echo.WrapHandler(http.HandlerFunc(pprof.Profile)))
	profiles.GET("/symbol", echo.WrapHandler(http.HandlerFunc(pprof.Symbol)))
	profiles.POST("/symbol", echo.WrapHandler(http.HandlerFunc(pprof.Symbol)))
	profiles.GET("/trace", echo.WrapHandler(http.HandlerFunc(pprof.Trace)))
	profiles.GET("/", echo.WrapHandler(http.HandlerFunc(pprof.Index)))
	profiles.GET("/*", echo.WrapHandler(http.HandlerFunc(pprof.Index)))
}

// cmdline replaces that of package pprof: flags may contain a password.
func cmdline(c echo.Context) error {
	return c.String(http.StatusOK, filepath.Base(os.Args[0]))
}
