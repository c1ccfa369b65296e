//go:build !linux

package load

// A reader reads each HTTP/1.1 stream from a goroutine of its own.
type reader = connReaders

func newReader(t *tally) (*reader, error) { return newConnReaders(t), nil }
