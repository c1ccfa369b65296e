package redis

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// maxCommands is how many connections commands may hold. A fleet of hubs
	// shares Redis' maxclients with the app.
	maxCommands = 4
	// idleCommand is how long one of them waits for the next command before it is
	// closed: half of the 10 s that are promised.
	idleCommand = 5 * time.Second
)

// Commands runs commands over at most 4 connections, apart from the subscription.
// They are made when needed and closed when nothing has asked for a while. Safe
// for concurrent use.
//
// It is a pool of its own, of go-redis clients with one connection each, because
// go-redis's pool closes idle connections only when it is asked for one.
type Commands struct {
	server *Server
	idle   time.Duration // after which an unused connection is closed
	slots  chan struct{} // one token for each connection lent; full: callers wait

	// Guarded by mu.
	mu     sync.Mutex
	free   []*command  // least recently used first
	reaper *time.Timer // nil unless one is due
	closed bool
}

// command is one connection for commands. Lent to one caller at a time.
type command struct {
	client *goredis.Client
	used   time.Time // last
}

// NewCommands makes a pool without connections.
func NewCommands(server *Server) *Commands {
	return &Commands{server: server, idle: idleCommand, slots: make(chan struct{}, maxCommands)}
}

// Publish sends a payload to a channel and returns how many subscribers of that
// Redis heard it. It is tried once: after an error, whether it was published is
// unknown, unless the error is that no connection could be made. The text of an
// error says what is wrong and what to do.
func (c *Commands) Publish(ctx context.Context, channel, payload string) (receivers int64, err error) {
	cmd, err := c.take(ctx)
	if err != nil {
		return 0, err
	}
	receivers, err = cmd.client.Publish(ctx, channel, payload).Result()
	c.give(cmd, err)
	switch {
	case err == nil:
		return receivers, nil
	case errors.Is(err, context.Canceled):
		return 0, err
	}
	return 0, c.server.denied(err, "publish", "+publish and a pattern for the channels, like &user-*")
}

// Close closes the connections: free ones now, one that is lent as soon as its
// command is done. Commands fail from then on.
func (c *Commands) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.reaper != nil {
		c.reaper.Stop()
	}
	c.closeFree(len(c.free))
}

// take lends the most recently used connection, or a new one.
func (c *Commands) take(ctx context.Context) (*command, error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		<-c.slots
		return nil, errors.New("commands to redis are closed")
	}
	if n := len(c.free); n > 0 {
		cmd := c.free[n-1]
		c.free = c.free[:n-1]
		return cmd, nil
	}
	return &command{client: c.server.newClient()}, nil
}

// give takes a connection back. One that failed is closed: a reply may still be
// under way on it.
func (c *Commands) give(cmd *command, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { <-c.slots }()
	if c.closed || err != nil && !isReply(err) {
		_ = cmd.client.Close()
		return
	}
	cmd.used = time.Now()
	c.free = append(c.free, cmd)
	if c.reaper == nil {
		c.reaper = time.AfterFunc(c.idle, c.reap)
	}
}

// reap closes what has been free for too long.
func (c *Commands) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	n := 0
	for n < len(c.free) && now.Sub(c.free[n].used) >= c.idle {
		n++
	}
	c.closeFree(n)
	c.reaper = nil
	if len(c.free) > 0 {
		c.reaper = time.AfterFunc(c.idle-now.Sub(c.free[0].used), c.reap)
	}
}

// closeFree closes the n connections that were unused for longest. c.mu is held.
func (c *Commands) closeFree(n int) {
	for _, cmd := range c.free[:n] {
		_ = cmd.client.Close()
	}
	c.free = append(c.free[:0], c.free[n:]...)
}

// newClient makes a client that connects when it is first used.
func (s *Server) newClient() *goredis.Client {
	opt := s.options()
	opt.ContextTimeoutEnabled = true // callers' deadlines count
	opt.Dialer = func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, _, err := s.dial(ctx)
		return conn, err
	}
	opt.OnConnect = func(ctx context.Context, cn *goredis.Conn) error {
		// Whoever subscribes names the missing right; a PUBLISH goes without.
		return optional(cn.ClientSetName(ctx, clientName).Err(), rightName, func(right, error) {})
	}
	return goredis.NewClient(opt)
}
