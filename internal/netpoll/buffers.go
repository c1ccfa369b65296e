package netpoll

import "net"

// Consume removes the first n bytes of bufs, and empty buffers behind them: a write
// would never get past one.
func Consume(bufs *net.Buffers, n int) {
	for len(*bufs) > 0 && n >= len((*bufs)[0]) {
		n -= len((*bufs)[0])
		*bufs = (*bufs)[1:]
	}
	if n > 0 {
		(*bufs)[0] = (*bufs)[0][n:]
	}
}
