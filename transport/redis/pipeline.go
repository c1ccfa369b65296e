package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// A Pipeline publishes over one connection of its own without waiting for answers,
// which come in order. Publish, Append and Flush are for one goroutine at a time,
// Receive for another one, Close for any.
//
// go-redis makes the connection and logs in; after that the Pipeline speaks for
// itself, because a go-redis pipeline waits for its answers before the next one.
type Pipeline struct {
	server *Server
	client *goredis.Client // holds the connection; asked for nothing any more
	conn   net.Conn
	w      *bufio.Writer // owned by who publishes
	r      *bufio.Reader // owned by who receives
	number []byte        // scratch of w's owner
	once   sync.Once
}

// pipelineBuffer is what goes out in one write when nobody flushes before.
const pipelineBuffer = 64 << 10

// NewPipeline connects, in a cluster to the owner of key, or to any node when key
// is "".
func NewPipeline(ctx context.Context, server *Server, key string) (*Pipeline, error) {
	if !server.keysDiffer() {
		key = ""
	}
	var conn net.Conn
	client := server.newClient(key, func(c net.Conn) net.Conn {
		conn = c
		checked, _ := checkReplies(c, 0)
		return checked
	})
	if err := client.Ping(ctx).Err(); err != nil {
		_ = client.Close()
		return nil, server.fault(err, false)
	}
	_ = conn.SetDeadline(time.Time{}) // go-redis leaves its own
	replies, _ := checkReplies(conn, 0)
	return &Pipeline{
		server: server, client: client, conn: conn,
		w: bufio.NewWriterSize(deadlineWriter{conn, server.answerTimeout}, pipelineBuffer),
		r: bufio.NewReaderSize(replies, pipelineBuffer),
	}, nil
}

// A deadlineWriter gives each write the time.
type deadlineWriter struct {
	net.Conn
	timeout time.Duration
}

func (w deadlineWriter) Write(b []byte) (int, error) {
	_ = w.SetWriteDeadline(time.Now().Add(w.timeout))
	return w.Conn.Write(b)
}

// Publish sends a payload to a channel, at the latest with Flush. The payload may be
// reused at once.
func (p *Pipeline) Publish(channel string, payload []byte) error {
	p.head(3)
	p.bulk("PUBLISH")
	p.bulk(channel)
	return p.last(payload)
}

// Append adds a message for a channel to the log, like Publish.
func (p *Pipeline) Append(key, channel string, payload []byte) error {
	p.head(7)
	p.bulk("XADD")
	p.bulk(key)
	p.bulk("*")
	p.bulk("ch")
	p.bulk(channel)
	p.bulk("data")
	return p.last(payload)
}

// A bufio.Writer remembers its first error, which last and Flush return.

func (p *Pipeline) head(args int) { p.length('*', args) }

func (p *Pipeline) length(kind byte, n int) {
	p.number = append(p.number[:0], kind)
	p.number = strconv.AppendInt(p.number, int64(n), 10)
	p.number = append(p.number, '\r', '\n')
	_, _ = p.w.Write(p.number)
}

func (p *Pipeline) bulk(s string) {
	p.length('$', len(s))
	_, _ = p.w.WriteString(s)
	_, _ = p.w.WriteString("\r\n")
}

func (p *Pipeline) last(payload []byte) error {
	p.length('$', len(payload))
	_, _ = p.w.Write(payload)
	_, err := p.w.WriteString("\r\n")
	return p.broken(err)
}

// Flush sends what is buffered.
func (p *Pipeline) Flush() error { return p.broken(p.w.Flush()) }

// Receive waits for the next answer, for as long as it takes: how many subscribers
// heard a PUBLISH, -1 for an entry that was appended. After an error reply
// more answers may follow; any other error is the end.
func (p *Pipeline) Receive() (heard int64, err error) {
	line, err := p.r.ReadSlice('\n')
	if err != nil {
		return 0, p.broken(err)
	}
	if len(line) < len(":\r\n") {
		return 0, errNoReply
	}
	text := string(line[1 : len(line)-len("\r\n")])
	switch line[0] {
	case ':':
		if heard, err = strconv.ParseInt(text, 10, 64); err != nil {
			return 0, errNoReply
		}
		return heard, nil
	case '$':
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return 0, errNoReply
		}
		_, err = p.r.Discard(n + len("\r\n"))
		return -1, p.broken(err)
	case '-':
		return 0, fmt.Errorf("redis %s refuses a message: %s", p.server.Name(), text)
	}
	return 0, errNoReply
}

var errNoReply = errors.New("what answers there is no redis")

// broken is an error of the connection in plain words.
func (p *Pipeline) broken(err error) error {
	if err == nil {
		return nil
	}
	if isHangUp(err) {
		return fmt.Errorf("redis %s has closed the connection", p.server.Name())
	}
	return p.server.fault(err, true)
}

// Close closes the connection: a Receive that waits returns.
func (p *Pipeline) Close() {
	p.once.Do(func() {
		_ = p.conn.Close()
		_ = p.client.Close()
	})
}
