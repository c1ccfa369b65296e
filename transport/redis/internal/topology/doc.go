// Package topology connects to Redis: it parses URLs, finds the server to connect to (a fixed
// address, Sentinels, a cluster), and describes connection errors.
//
// A Server is one Redis and is safe for concurrent use. A Conn is one connection to it, which
// closes when its context ends. Only one goroutine calls Conn.Receive.
package topology
