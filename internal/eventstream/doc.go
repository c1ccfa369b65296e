// Package eventstream reads an event stream as a browser does. It implements the standard (WHATWG
// HTML, section 9.2, "Server-sent events") independently of transport/sse, which encodes such
// streams, so that tests can compare the two.
//
// A Reader belongs to one goroutine at a time and starts none.
package eventstream
