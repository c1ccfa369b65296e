package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/resp"
	"usercast/transport/redis/internal/topology"
)

// A Pipeline publishes over a separate connection without waiting for replies, which arrive in
// order. One goroutine at a time may call Publish, Append and Flush, another one Receive. Close
// is safe for concurrent use.
//
// go-redis makes the connection and authenticates; after that the Pipeline implements the
// protocol itself, because a go-redis pipeline waits for its replies before the next one.
type Pipeline struct {
	server *topology.Server
	client *goredis.Client // owns the connection; not used after NewPipeline
	conn   net.Conn
	w      *resp.Writer // owned by the publishing goroutine
	r      *resp.Reader // owned by the receiving goroutine
	once   sync.Once
}

// pipelineBuffer is the size of the write buffer. A full buffer is sent without a Flush.
const pipelineBuffer = 64 << 10

// NewPipeline connects. In a cluster, it connects to the owner of key. If key is "", it connects preferably to the
// primary that owns the slot of the control channel, where the hubs are, so that Receive counts them.
func NewPipeline(ctx context.Context, server *Server, key, controlChannel string) (*Pipeline, error) {
	s := server.topology()
	to := topology.Target{Key: key}
	switch {
	case !s.KeysDiffer():
		to.Key = ""
	case s.IsCluster() && key == "":
		to.Prefer = controlChannel
	}
	var conn net.Conn
	client := s.NewClient(to, func(c net.Conn) net.Conn {
		conn = c
		checked, _ := resp.Check(c, 0)
		return checked
	})
	if err := client.Ping(ctx).Err(); err != nil {
		_ = client.Close()
		return nil, s.Fault(err, false)
	}
	_ = conn.SetDeadline(time.Time{}) // go-redis leaves its own deadline set
	return &Pipeline{
		server: s, client: client, conn: conn,
		w: resp.NewWriter(conn, s.AnswerTimeout(), pipelineBuffer),
		r: resp.NewReader(conn),
	}, nil
}

// Publish sends a payload to a channel, with the next Flush at the latest. The caller may reuse the
// payload immediately.
func (p *Pipeline) Publish(channel string, payload []byte) error {
	p.w.Array(3)
	p.w.Bulk("PUBLISH")
	p.w.Bulk(channel)
	return p.broken(p.w.BulkBytes(payload))
}

// Append adds a message for a channel to a Redis stream, like Publish.
func (p *Pipeline) Append(key, channel string, payload []byte) error {
	p.w.Array(7)
	p.w.Bulk("XADD")
	p.w.Bulk(key)
	p.w.Bulk("*")
	p.w.Bulk("ch")
	p.w.Bulk(channel)
	p.w.Bulk("data")
	return p.broken(p.w.BulkBytes(payload))
}

// Flush sends what is buffered.
func (p *Pipeline) Flush() error { return p.broken(p.w.Flush()) }

// Receive waits for the next reply, without a timeout. It returns how many subscribers received a
// PUBLISH, or -1 for an appended entry. After an error reply, more replies may follow; after any
// other error, the Pipeline cannot be used.
func (p *Pipeline) Receive() (receivers int64, err error) {
	h, err := p.r.Head()
	switch {
	case err != nil:
		return 0, p.broken(err)
	case h.Kind == ':':
		return h.N, nil
	case h.Kind == '$' && h.N >= 0:
		_, err = p.r.Bulk(h.N, 0, nil)
		return -1, p.broken(err)
	case h.Kind == '-':
		return 0, fmt.Errorf("redis %s rejected a message: %s", p.server.Name(), h.Text)
	}
	return 0, errNotRedis
}

var errNotRedis = errors.New("the server is not redis")

// broken describes an error of the connection.
func (p *Pipeline) broken(err error) error {
	var wrong *resp.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		return errNotRedis
	case topology.IsHangUp(err):
		return fmt.Errorf("redis %s closed the connection", p.server.Name())
	}
	return p.server.Fault(err, true)
}

// Close closes the connection and makes a waiting Receive return.
func (p *Pipeline) Close() {
	p.once.Do(func() {
		_ = p.conn.Close()
		_ = p.client.Close()
	})
}
