package redis

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/resp"
	"usercast/transport/redis/internal/topology"
)

const (
	// maxCommands is how many connections commands may hold. A fleet of hubs
	// shares Redis' maxclients with the app.
	maxCommands = 4
	// MaxConnections is how many connections to Redis a hub may have at the same time: that of its
	// feed, those for commands, and one for a probe. A stream feed has one more while it answers
	// queries.
	MaxConnections = maxCommands + 2
	// commandAge is how long one of them is used before another one is made: half of the
	// 10 s after which an idle one is promised to be closed. A primary that was demoted
	// keeps its connections and executes PUBLISH, which then reaches no hub. A hub that
	// has not noticed yet sends commands there for at most that long.
	commandAge = 5 * time.Second
)

// Commands runs commands over at most 4 connections, separate from the subscription. It
// makes them when needed, and closes each when it is 5 s old, or when the feed of the same
// Server has found that a new connection reaches another server. Safe for concurrent use.
//
// It is a separate pool of go-redis clients with one connection each, because go-redis's own
// pool closes idle connections only when a connection is requested.
type Commands struct {
	server *topology.Server
	age    time.Duration           // at which a connection is closed, unless it is lent
	slots  chan struct{}           // one token for each connection lent; full: callers wait
	wrap   func(net.Conn) net.Conn // each connection, as soon as it is made
	keep   int                     // bytes of a string that are not cut; see resp.CheckedConn

	// Guarded by mu.
	mu     sync.Mutex
	free   []*command  // least recently used first
	reaper *time.Timer // nil unless one is due
	closed bool
}

// command is one connection for commands. Lent to one caller at a time.
type command struct {
	client  *goredis.Client
	key     string                           // whose owner it leads to; "": any node, or there is one only
	epoch   uint64                           // of the server's connections
	made    time.Time                        // when its first command was done
	replies atomic.Pointer[resp.CheckedConn] // what is read passes through it
}

// NewCommands makes a pool without connections.
func NewCommands(server *Server) *Commands {
	return &Commands{
		server: server.topology(),
		age:    commandAge,
		slots:  make(chan struct{}, maxCommands),
		wrap:   func(conn net.Conn) net.Conn { return conn },
	}
}

// Publish sends a payload to a channel and returns how many subscribers of that
// Redis received it. It is tried once: after an error, whether it was published is
// unknown, unless the error is that no connection could be made. The text of an
// error says what is wrong and what to do. In a cluster the subscribers are those
// of one node, although all receive it.
func (c *Commands) Publish(ctx context.Context, channel, payload string) (receivers int64, err error) {
	return c.publish(ctx, channel, payload, "+publish and a channel pattern such as &user-*")
}

// PublishControl sends a control command to every hub that is subscribed to the control channel
// now, and returns how many subscribers received it. Otherwise it is like Publish.
func (c *Commands) PublishControl(ctx context.Context, channel string, command Control) (receivers int64, err error) {
	return c.publish(ctx, channel, command.String(), "+publish &"+acl.Escape(channel))
}

func (c *Commands) publish(ctx context.Context, channel, payload, grant string) (receivers int64, err error) {
	err = c.do(ctx, "", func(client *goredis.Client) error {
		receivers, err = client.Publish(ctx, channel, payload).Result()
		return err
	})
	switch {
	case err == nil:
		return receivers, nil
	case errors.Is(err, context.Canceled):
		return 0, err
	}
	return 0, c.server.Denied(err, "publish", grant)
}

// do lends a connection to run, once. In a cluster it leads to the node that
// owns the key, or to any node when key is "". It returns run's error as it is.
func (c *Commands) do(ctx context.Context, key string, run func(*goredis.Client) error) error {
	if !c.server.KeysDiffer() {
		key = ""
	}
	cmd, err := c.take(ctx, key)
	if err != nil {
		return err
	}
	err = run(cmd.client)
	c.give(cmd, err)
	return err
}

// Close closes idle connections immediately, and others when their command is done. Later commands
// fail.
func (c *Commands) Close() {
	c.mu.Lock()
	c.closed = true
	if c.reaper != nil {
		c.reaper.Stop()
	}
	free := c.free
	c.free = nil
	c.mu.Unlock()
	hangUp(free...)
}

// take lends the most recently used connection that leads to the key's owner, or
// a new one.
func (c *Commands) take(ctx context.Context, key string) (*command, error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.slots
		return nil, errors.New("redis command pool is closed")
	}
	surplus := c.takeStale()
	for i, cmd := range slices.Backward(c.free) {
		if key == "" || cmd.key == key {
			c.free = slices.Delete(c.free, i, i+1)
			c.mu.Unlock()
			hangUp(surplus...)
			return cmd, nil
		}
	}
	// Connections to other keys' owners must not add up to more than are allowed.
	if n := len(c.slots) + len(c.free) - cap(c.slots); n > 0 {
		surplus = append(surplus, c.free[:n]...)
		c.free = slices.Delete(c.free, 0, n)
	}
	c.mu.Unlock()
	hangUp(surplus...)
	cmd := &command{key: key, epoch: c.server.Epoch()}
	cmd.client = c.server.NewClient(topology.Target{Key: key}, func(conn net.Conn) net.Conn {
		conn, replies := resp.Check(c.wrap(conn), c.keep)
		cmd.replies.Store(replies)
		return conn
	})
	return cmd, nil
}

// give takes a connection back. One that failed is closed: a reply may still be
// under way on it. So is one on which more has come than was requested, one that leads to
// the wrong node by now, and one that is stale.
func (c *Commands) give(cmd *command, err error) {
	if cmd.made.IsZero() {
		cmd.made = time.Now()
	}
	answered := err == nil || acl.IsReply(err) && !isElsewhere(err)
	c.mu.Lock()
	fit := answered && cmd.replies.Load().Idle() && !c.stale(cmd) && !c.closed
	if fit {
		c.free = append(c.free, cmd)
		c.awaitAge()
	}
	c.mu.Unlock()
	if !fit {
		hangUp(cmd)
	}
	<-c.slots
}

// stale reports whether a connection may lead to where a new one would not.
func (c *Commands) stale(cmd *command) bool {
	return cmd.epoch != c.server.Epoch() || time.Since(cmd.made) >= c.age
}

// takeStale removes the free connections that are stale. C.mu is held.
func (c *Commands) takeStale() (stale []*command) {
	c.free = slices.DeleteFunc(c.free, func(cmd *command) bool {
		if c.stale(cmd) {
			stale = append(stale, cmd)
			return true
		}
		return false
	})
	return stale
}

// awaitAge sees to it that free connections are closed in time. C.mu is held.
func (c *Commands) awaitAge() {
	if c.reaper != nil || len(c.free) == 0 {
		return
	}
	oldest := slices.MinFunc(c.free, func(a, b *command) int { return a.made.Compare(b.made) })
	c.reaper = time.AfterFunc(c.age-time.Since(oldest.made), c.reap)
}

// reap closes what is stale.
func (c *Commands) reap() {
	c.mu.Lock()
	c.reaper = nil
	stale := c.takeStale()
	c.awaitAge()
	c.mu.Unlock()
	hangUp(stale...)
}

// hangUp closes connections. It may take a while, as with TLS: c.mu is not held.
func hangUp(commands ...*command) {
	for _, cmd := range commands {
		_ = cmd.client.Close()
	}
}

// isElsewhere reports whether an error reply means that another node is to be
// used: the primary was demoted, or the key has moved.
func isElsewhere(err error) bool {
	for _, prefix := range []string{"READONLY", "MOVED", "ASK", "CLUSTERDOWN"} {
		if goredis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}
