package redis

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/resp"
	"usercast/transport/redis/internal/topology"
)

const (
	// maxCommands is the maximum number of connections for commands, in addition to that for markers.
	// A fleet of hubs shares Redis's maxclients with the app.
	maxCommands = 3
	// MaxConnections is the number of connections to Redis that a hub may have at the same time:
	// one for its feed, those for commands, one for markers, and one for a probe or a look-up.
	MaxConnections = maxCommands + 3
	// MaxStreamConnections is the same with a stream feed, which writes no markers, but has one more
	// connection while it answers queries.
	MaxStreamConnections = maxCommands + 3
	// commandAge is the maximum age of a connection for commands. A demoted primary keeps its
	// connections and executes PUBLISH, but the message does not reach any hub. A hub that has not
	// detected the failover sends commands there for at most this time. The documented bound for
	// idle connections, 10 s, is twice this time.
	commandAge = 5 * time.Second
)

// Commands runs commands over at most 3 connections, separate from the subscription. It opens a
// connection when needed. It closes a connection after 5 s, or when the feed of the same Server
// has detected that new connections reach another server. Safe for concurrent use.
//
// It is a separate pool of go-redis clients with one connection each, because go-redis's own
// pool closes idle connections only when a connection is requested.
type Commands struct {
	server *topology.Server
	age    time.Duration           // a connection that is older is closed, unless it is lent
	slots  chan struct{}           // one token per lent connection; callers wait while it is full
	wrap   func(net.Conn) net.Conn // applied to each new connection
	keep   int                     // bytes of a string that are not truncated; see resp.CheckedConn

	hubs     string   // see PublishNearHubs
	channels Channels // see UseChannels

	// Guarded by mu.
	mu     sync.Mutex
	missed time.Time   // when a PUBLISH near the hubs last failed
	free   []*command  // least recently used first
	reaper *time.Timer // nil unless a timer is set
	closed bool
}

// command is one connection for commands. Lent to one caller at a time.
type command struct {
	client  *goredis.Client
	to      topology.Target                  // zero: any node, or the only server
	epoch   uint64                           // of the server's connections
	made    time.Time                        // when its first command was completed
	replies atomic.Pointer[resp.CheckedConn] // checks what is read
}

// NewCommands returns a pool without connections.
func NewCommands(server *Server) *Commands {
	return &Commands{
		server: server.topology(),
		age:    commandAge,
		slots:  make(chan struct{}, maxCommands),
		wrap:   func(conn net.Conn) net.Conn { return conn },
	}
}

// PublishNearHubs sets the control channel of the hubs. In a cluster, Publish then goes through the primary that owns
// its slot, where hubs are subscribed, so that it counts them. Other servers ignore it. It must be called
// before other methods.
func (c *Commands) PublishNearHubs(controlChannel string) { c.hubs = controlChannel }

// UseChannels sets the channels of users and groups, which the errors of Publish name. It must be called before other methods.
func (c *Commands) UseChannels(channels Channels) { c.channels = channels }

// Publish sends a payload to a channel and returns how many subscribers of that Redis received it.
// It makes one attempt. After an error, the message may have been published, unless the connection
// could not be made. The text of an error says what is wrong and what to do. In a cluster, only
// the subscribers of one node are counted, although all receive the message: see PublishNearHubs.
func (c *Commands) Publish(ctx context.Context, channel, payload string) (receivers int64, err error) {
	return c.publish(ctx, c.hubs, channel, payload, func(err error) string { return c.grantPublish(channel, err) })
}

// grantPublish returns the permission that is missing to publish to a channel. A user with access to all channels cannot be
// granted another one, so a pattern is only an example until Redis has refused the channel.
func (c *Commands) grantPublish(channel string, refusal error) string {
	pattern := acl.Escape(channel)
	for _, prefix := range []string{c.channels.Users, c.channels.Groups} {
		if prefix != "" && strings.HasPrefix(channel, prefix) {
			pattern = acl.Pattern(prefix)
		}
	}
	if strings.Contains(refusal.Error(), " channel") {
		return "&" + pattern
	}
	return "+publish and a channel pattern such as &" + pattern
}

// PublishControl is Publish for a control command: it reaches every hub that is currently
// subscribed to the control channel.
func (c *Commands) PublishControl(ctx context.Context, channel string, command Control) (receivers int64, err error) {
	return c.publish(ctx, channel, channel, command.String(), func(error) string { return "+publish &" + acl.Escape(channel) })
}

// publish goes through any node for a minute after the one near the hubs has failed: any node forwards the message to
// the others, and the hubs leave a node that does not work.
func (c *Commands) publish(ctx context.Context, hubs, channel, payload string, grant func(error) string) (receivers int64, err error) {
	err = c.nearHubs(ctx, hubs, grant, func(client *goredis.Client) (err error) {
		receivers, err = client.Publish(ctx, channel, payload).Result()
		return err
	})
	return receivers, err
}

// nearHubs calls run with a connection for PUBLISH. grant returns which permission is missing if Redis refuses the command.
func (c *Commands) nearHubs(ctx context.Context, hubs string, grant func(error) string, run func(*goredis.Client) error) error {
	to := topology.Target{Prefer: hubs}
	c.mu.Lock()
	if !c.missed.IsZero() && time.Since(c.missed) < avoidFor {
		to.Prefer = ""
	}
	c.mu.Unlock()
	err := c.do(ctx, to, run)
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case to.Prefer != "" && !acl.IsReply(err):
		c.mu.Lock()
		c.missed = time.Now()
		c.mu.Unlock()
	}
	return c.server.Denied(err, "publish", grant(err))
}

// IsReplica reports whether commands go to a replica, where messages reach only the subscribers of that replica. It
// returns false if that cannot be determined, and in a cluster, whose nodes all pass messages on.
func (c *Commands) IsReplica(ctx context.Context) (replica bool) {
	if c.server.IsCluster() {
		return false
	}
	err := c.do(ctx, topology.Target{}, func(client *goredis.Client) error {
		info, err := client.Info(ctx, "replication").Result()
		replica = topology.InfoField(info, "role") == "slave"
		return err
	})
	return err == nil && replica
}

// do calls run once with a connection to a target. It returns run's error unchanged.
func (c *Commands) do(ctx context.Context, to topology.Target, run func(*goredis.Client) error) error {
	if !c.server.KeysDiffer() {
		to.Key = ""
	}
	if !c.server.IsCluster() {
		to.Prefer = ""
	}
	cmd, err := c.take(ctx, to)
	if err != nil {
		return err
	}
	err = run(cmd.client)
	c.give(cmd, err)
	return err
}

// Close closes idle connections immediately, and others after their command. Later commands fail.
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

// take lends the most recently used connection to the target, or a new one.
func (c *Commands) take(ctx context.Context, to topology.Target) (*command, error) {
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
		if to == (topology.Target{}) || cmd.to == to {
			c.free = slices.Delete(c.free, i, i+1)
			c.mu.Unlock()
			hangUp(surplus...)
			return cmd, nil
		}
	}
	// Connections to other targets count towards the limit.
	if n := len(c.slots) + len(c.free) - cap(c.slots); n > 0 {
		surplus = append(surplus, c.free[:n]...)
		c.free = slices.Delete(c.free, 0, n)
	}
	c.mu.Unlock()
	hangUp(surplus...)
	cmd := &command{to: to, epoch: c.server.Epoch()}
	cmd.client = c.server.NewClient(to, func(conn net.Conn) net.Conn {
		conn, replies := resp.Check(c.wrap(conn), c.keep)
		cmd.replies.Store(replies)
		return conn
	})
	return cmd, nil
}

// give returns a connection to the pool. It closes the connection instead if the command failed,
// because a reply may still be in flight; if more has arrived than was requested; if Redis replied
// that another node is responsible; or if the connection is stale.
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

// stale reports whether a new connection might reach another server than this one.
func (c *Commands) stale(cmd *command) bool {
	return cmd.epoch != c.server.Epoch() || time.Since(cmd.made) >= c.age
}

// takeStale removes the free connections that are stale. c.mu is held.
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

// awaitAge sets the timer that closes free connections when they are too old. c.mu is held.
func (c *Commands) awaitAge() {
	if c.reaper != nil || len(c.free) == 0 {
		return
	}
	oldest := slices.MinFunc(c.free, func(a, b *command) int { return a.made.Compare(b.made) })
	c.reaper = time.AfterFunc(c.age-time.Since(oldest.made), c.reap)
}

// reap closes stale connections.
func (c *Commands) reap() {
	c.mu.Lock()
	c.reaper = nil
	stale := c.takeStale()
	c.awaitAge()
	c.mu.Unlock()
	hangUp(stale...)
}

// hangUp closes connections. With TLS this may take a while, so c.mu must not be held.
func hangUp(commands ...*command) {
	for _, cmd := range commands {
		_ = cmd.client.Close()
	}
}

// isElsewhere reports whether an error reply means that another node is responsible: the primary
// was demoted, or the key has moved.
func isElsewhere(err error) bool {
	for _, prefix := range []string{"READONLY", "MOVED", "ASK", "CLUSTERDOWN"} {
		if goredis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}
