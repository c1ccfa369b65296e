package redistest

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// StartFake starts a server that replies to each command with the result of reply, whose arguments are the command
// and its arguments. If the result is "", it does not reply. If hangUp is set, it closes the connection after a
// reply.
func StartFake(t testing.TB, reply func(command ...string) string, hangUp bool) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve := func(conn net.Conn) {
		defer conn.Close()
		for in := bufio.NewReader(conn); ; {
			// A request is "*n", followed by the length and text of each of n words.
			line := func() string { s, _ := in.ReadString('\n'); return strings.TrimSpace(s) }
			var words []string
			n, _ := strconv.Atoi(strings.TrimPrefix(line(), "*"))
			for range n {
				line()
				words = append(words, line())
			}
			if n == 0 {
				return
			}
			if text := reply(words...); text != "" {
				fmt.Fprintf(conn, "%s\r\n", text)
				if hangUp {
					return
				}
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}
