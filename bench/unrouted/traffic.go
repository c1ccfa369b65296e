package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A load describes how messages are published.
type load struct {
	feed        string // "stream" appends messages with XADD
	rate        int    // messages per second; 0 means as many as outstanding allows
	connections int
	outstanding int // maximum number of messages in flight per connection
	payload     string
	length      time.Duration
}

// publish publishes the messages and returns how many there were.
func (l load) publish(redis string) (sent int, err error) {
	var (
		wg    sync.WaitGroup
		all   atomic.Int64
		first = make(chan error, 1)
		begun = time.Now()
	)
	for range l.connections {
		wg.Go(func() {
			n, err := l.publishOn(redis, begun)
			all.Add(int64(n))
			if err != nil {
				select {
				case first <- err:
				default:
				}
			}
		})
	}
	wg.Wait()
	select {
	case err = <-first:
	default:
	}
	return int(all.Load()), err
}

// publishOn publishes over one connection. It sends the messages that are due, up to outstanding, and waits for the
// responses.
func (l load) publishOn(redis string, begun time.Time) (sent int, err error) {
	conn, err := net.Dial("tcp", redis)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	r, w := bufio.NewReader(conn), bufio.NewWriter(conn)
	for {
		passed := time.Since(begun)
		if passed >= l.length {
			return sent, nil
		}
		n := l.outstanding
		if l.rate > 0 {
			n = min(n, int(passed.Seconds()*float64(l.rate)/float64(l.connections))-sent)
		}
		if n <= 0 {
			time.Sleep(time.Millisecond)
			continue
		}
		for range n {
			l.write(w)
		}
		if err := w.Flush(); err != nil {
			return sent, err
		}
		for range n {
			if err := reply(r); err != nil {
				return sent, err
			}
		}
		sent += n
	}
}

// write writes one message to one of ten million users.
func (l load) write(w io.Writer) {
	channel := fmt.Sprintf("user-%07d:activity", rand.IntN(1e7))
	if l.feed == "stream" {
		command(w, "XADD", "usercast:log", "MAXLEN", "~", "100000", "*", "ch", channel, "data", l.payload)
		return
	}
	command(w, "PUBLISH", channel, l.payload)
}

func command(w io.Writer, args ...string) {
	fmt.Fprintf(w, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(w, "$%d\r\n%s\r\n", len(arg), arg)
	}
}

// reply reads one response, a number or a string.
func reply(r *bufio.Reader) error {
	line, err := r.ReadString('\n')
	if err == nil && line[0] == '-' {
		err = fmt.Errorf("redis returned %s", strings.TrimSpace(line))
	}
	if err == nil && line[0] == '$' {
		_, err = r.ReadString('\n')
	}
	return err
}

// subscribers are connections that subscribe to one pattern and discard its messages.
type subscribers struct {
	conns []net.Conn
	bytes atomic.Int64
	wg    sync.WaitGroup
}

func subscribe(redis string, n int) (*subscribers, error) {
	s := new(subscribers)
	for range n {
		conn, err := net.Dial("tcp", redis)
		if err != nil {
			s.close()
			return nil, err
		}
		s.conns = append(s.conns, conn)
		command(conn, "PSUBSCRIBE", "user-*")
		r := bufio.NewReader(conn)
		for range 6 { // the confirmation: an array of two strings and a number
			if _, err := r.ReadString('\n'); err != nil {
				s.close()
				return nil, err
			}
		}
		s.wg.Go(func() {
			b := make([]byte, 256<<10)
			for {
				n, err := conn.Read(b)
				s.bytes.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	return s, nil
}

func (s *subscribers) close() {
	for _, conn := range s.conns {
		conn.Close()
	}
	s.wg.Wait()
}

// wireBytes returns how many bytes Redis sends to a subscriber for one message, in RESP2.
func wireBytes(pattern, channel, payload string) int {
	n := len("*4\r\n")
	for _, s := range []string{"pmessage", pattern, channel, payload} {
		n += len(fmt.Sprintf("$%d\r\n%s\r\n", len(s), s))
	}
	return n
}
