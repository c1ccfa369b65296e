// Package proxypath inspects a hub's stream as a browser receives it: at its public URL, through the operator's own
// proxy. It reports buffering, compression, changed headers and idle timeouts, and what to change.
//
// It sends one GET request, and a second one if the result of the first has two possible causes. If it can publish, it
// also sends three messages of about 50 bytes to the user of the stream. Open pages of that user receive them, too.
//
// One goroutine reads the body of a stream. It ends with the stream, and close waits for it.
package proxypath
