//go:build !unix

package netpoll

import "net"

// A TryWriter writes nothing on this system.
type TryWriter struct{}

// NewTryWriter returns a TryWriter that writes nothing.
func NewTryWriter(net.Conn) *TryWriter { return nil }

// Write returns 0.
func (*TryWriter) Write([]byte) (int, error) { return 0, nil }
