package redistest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strconv"
	"testing"
)

// StartDamagingRelay starts a relay that replaces each complete reply of the server with the result of damage. The
// server must be a Redis that uses RESP2. One goroutine per connection calls damage, which may keep the reply.
func StartDamagingRelay(tb testing.TB, target string, damage func(reply []byte) []byte) *Relay {
	tb.Helper()
	return startRelay(tb, target, func(dst, src net.Conn) error {
		for in := bufio.NewReader(src); ; {
			reply, err := readReply(in)
			if err != nil {
				return err
			}
			if _, err := dst.Write(damage(reply)); err != nil {
				return err
			}
		}
	})
}

var errReply = errors.New("not a reply in RESP2")

// readReply reads the bytes of one reply.
func readReply(in *bufio.Reader) ([]byte, error) {
	reply, err := in.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	if len(reply) < len("+\r\n") {
		return nil, errReply
	}
	kind, rest := reply[0], string(reply[1:len(reply)-len("\r\n")])
	switch kind {
	case '+', '-', ':':
		return reply, nil
	case '$', '*':
	default:
		return nil, errReply
	}
	n, err := strconv.Atoi(rest)
	if err != nil {
		return nil, errReply
	}
	if n < 0 {
		return reply, nil
	}
	if kind == '$' {
		text := make([]byte, n+len("\r\n"))
		_, err := io.ReadFull(in, text)
		return append(reply, text...), err
	}
	for range n {
		element, err := readReply(in)
		if err != nil {
			return nil, err
		}
		reply = append(reply, element...)
	}
	return reply, nil
}
