// Package check looks at a hub's stream as a browser would get it: through the operator's own
// proxy, at its public URL. It finds what holds events back, packs them, changes their head, or
// cuts a quiet stream, and says what to change.
//
// What it does is one GET, a second one where the first leaves two causes open, and, if
// it may publish, three messages of some 50 bytes to the user whose stream it is. Pages of
// that user that are open get them, too.
//
// One goroutine reads a stream's body; it ends with the stream, which close waits for.
package proxypath
