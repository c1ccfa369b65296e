package hubtest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A Publisher publishes as an app does: it uses RESP over one connection to Redis, so that it can pipeline. Only one
// goroutine may use it at a time.
type Publisher struct {
	Conn net.Conn
	in   *bufio.Reader
}

// NewPublisher connects to a Redis at host:port.
func NewPublisher(tb testing.TB, addr string) *Publisher {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return &Publisher{conn, bufio.NewReader(conn)}
}

// Do sends one command and returns its reply: a simple string, an integer or a bulk string.
func (p *Publisher) Do(tb testing.TB, args ...string) string {
	tb.Helper()
	p.Conn.SetDeadline(time.Now().Add(Patience))
	if _, err := io.WriteString(p.Conn, RedisCommand(args...)); err != nil {
		tb.Fatal(err)
	}
	reply, err := p.Reply()
	if err != nil {
		tb.Fatalf("%.80q: %v", args, err)
	}
	return reply
}

// Publish publishes one message, and returns how many subscribers received it.
func (p *Publisher) Publish(tb testing.TB, channel, payload string) int {
	tb.Helper()
	n, err := strconv.Atoi(p.Do(tb, "PUBLISH", channel, payload))
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// Append appends one message to the stream usercast:log.
func (p *Publisher) Append(tb testing.TB, channel, payload string) {
	tb.Helper()
	p.Do(tb, "XADD", "usercast:log", "*", "ch", channel, "data", payload)
}

// Burst publishes n messages without waiting for replies in between. Exactly one subscriber must receive each.
func (p *Publisher) Burst(tb testing.TB, n int, message func(i int) (channel, payload string)) {
	tb.Helper()
	p.Conn.SetDeadline(time.Now().Add(Patience))
	written := make(chan error, 1)
	go func() {
		w := bufio.NewWriterSize(p.Conn, 64<<10)
		for i := range n {
			channel, payload := message(i)
			io.WriteString(w, RedisCommand("PUBLISH", channel, payload))
		}
		written <- w.Flush()
	}()
	for i := range n {
		if subscribers, err := p.Reply(); err != nil || subscribers != "1" {
			tb.Fatalf("message %d was received by %q subscribers, want 1: %v", i, subscribers, err)
		}
	}
	if err := <-written; err != nil {
		tb.Fatal(err)
	}
}

// Reply reads the reply to a command that was written to Conn.
func (p *Publisher) Reply() (string, error) {
	line, err := p.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	switch line[0] {
	case '+', ':':
		return line[1:], nil
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil {
			return "", err
		}
		bulk := make([]byte, n+len("\r\n"))
		_, err = io.ReadFull(p.in, bulk)
		return string(bulk[:n]), err
	}
	return "", fmt.Errorf("redis replies %q", line)
}

// RedisCommand returns a command in RESP.
func RedisCommand(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}
