// Package check implements the command check. It inspects the configuration, Redis, authentication and the path through
// the proxy, and reports what to change. Check.Run calls the inspections. Each has its own file. Package proxypath opens
// the stream as a browser does.
//
// The command changes nothing, but it publishes a few small messages: see inspect.Inspection and package proxypath.
package check
