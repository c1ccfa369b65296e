// Package echosse serves the streams of package sse in apps that use echo.
package echosse

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"usercast/transport/sse"
)

// Handler returns the handler for an echo route. Register it for all methods
// (echo.Echo.Any): it answers unsupported methods with 405.
//
// Over HTTP/1.1 without TLS the handler returns immediately, and the stream continues outside the
// middleware. Compression and timeout middleware must not be used on the route.
func Handler(h *sse.Handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		h.ServeHTTP(responseWriter{c.Response()}, c.Request())
		return nil
	}
}

// CORS returns middleware that sets the CORS headers on every response: see sse.Handler.SetCORS.
func CORS(h *sse.Handler) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			h.SetCORS(c.Response().Header(), c.Request())
			return next(c)
		}
	}
}

// A responseWriter returns the errors of Flush. The Flush method of echo.Response drops them, and panics
// if flushing is not supported.
type responseWriter struct{ *echo.Response }

// FlushError is called by http.ResponseController.
func (w responseWriter) FlushError() error {
	return http.NewResponseController(w.Response.Writer).Flush()
}
