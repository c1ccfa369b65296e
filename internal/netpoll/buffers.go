package netpoll

import "net"

// Consume removes the first n bytes of bufs, and empty buffers after them. An empty buffer would
// otherwise stay first forever, because a write of 0 bytes does not remove it.
func Consume(bufs *net.Buffers, n int) {
	for len(*bufs) > 0 && n >= len((*bufs)[0]) {
		n -= len((*bufs)[0])
		*bufs = (*bufs)[1:]
	}
	if n > 0 {
		(*bufs)[0] = (*bufs)[0][n:]
	}
}
