// Package eventstream reads an event stream as a browser does. It is written from the standard
// (WHATWG HTML, section 9.2, "Server-sent events") and from nothing of transport/sse, which
// encodes such streams: tests hold one against the other.
//
// A Reader belongs to one goroutine at a time and starts none.
package eventstream
