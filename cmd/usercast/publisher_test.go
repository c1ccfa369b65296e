package main

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

// A publisher is the app: it speaks to Redis over one connection, in Redis'
// own words, so that it can pipeline.
type publisher struct {
	conn net.Conn
	r    *bufio.Reader
}

func newPublisher(t *testing.T, addr string) *publisher {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &publisher{conn, bufio.NewReader(conn)}
}

// do sends one command and returns a simple reply, an integer or a bulk string.
func (p *publisher) do(t *testing.T, args ...string) string {
	t.Helper()
	p.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(p.conn, command(args...)); err != nil {
		t.Fatal(err)
	}
	reply, err := p.reply()
	if err != nil {
		t.Fatalf("%.80q: %v", args, err)
	}
	return reply
}

// publish publishes one message and returns how many subscribers heard it.
func (p *publisher) publish(t *testing.T, channel, payload string) int {
	t.Helper()
	n, err := strconv.Atoi(p.do(t, "PUBLISH", channel, payload))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// burst publishes n messages without waiting for an answer in between. Each must
// be heard by one subscriber.
func (p *publisher) burst(t *testing.T, n int, message func(i int) (channel, payload string)) {
	t.Helper()
	p.conn.SetDeadline(time.Now().Add(patience))
	written := make(chan error, 1)
	go func() {
		w := bufio.NewWriterSize(p.conn, 64<<10)
		for i := range n {
			channel, payload := message(i)
			io.WriteString(w, command("PUBLISH", channel, payload))
		}
		written <- w.Flush()
	}()
	for i := range n {
		if heard, err := p.reply(); err != nil || heard != "1" {
			t.Fatalf("PUBLISH number %d: heard by %q, %v", i, heard, err)
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}

func command(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

func (p *publisher) reply() (string, error) {
	line, err := p.r.ReadString('\n')
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
		_, err = io.ReadFull(p.r, bulk)
		return string(bulk[:n]), err
	}
	return "", fmt.Errorf("redis answers %q", line)
}
