// Package check is the command check: it inspects the configuration, Redis, the authentication and the path through the
// proxy, and reports what to change. Each file inspects one of these; package proxypath opens the stream as a browser does.
//
// What it inspects is not changed, except for a few small messages: see inspect.Inspection and package proxypath.
package check
