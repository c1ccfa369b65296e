// Package check implements the command check. It inspects the configuration, Redis, the authentication and the path
// through the proxy, and reports what to change. Check.Run calls the inspections, which have a file each; package
// proxypath opens the stream as a browser does.
//
// It changes nothing, but it publishes a few small messages: see inspect.Inspection and package proxypath.
package check
