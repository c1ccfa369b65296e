//go:build !linux

package load

// A reader reads each HTTP/1.1 stream in a separate goroutine.
type reader = connReaders

func newReader(t *tally) (*reader, error) { return newConnReaders(t), nil }
