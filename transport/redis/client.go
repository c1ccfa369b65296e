package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// clientName is what CLIENT LIST shows for every connection of ours.
const clientName = "usercast"

// go-redis prints failed dials, pool trouble and the like to stderr, past slog,
// once per try. All that matters of it comes back as an error too and is said
// once by report.go. The switch is the process's: it silences go-redis for an
// embedding program as well, which can set its own with goredis.SetLogger.
func init() { logging.Disable() }

// options are what all connections have in common.
func (s *Server) options() *goredis.Options {
	return &goredis.Options{
		Network:  s.network,
		Addr:     s.addr,
		Username: s.user,
		Password: s.password,
		// RESP3 pub/sub has lost messages and hung in go-redis (#3839, #3935).
		Protocol: 2,
		// No CLIENT SETINFO and no CLIENT MAINT_NOTIFICATIONS: fewer rights needed.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		// Trying again is for callers, who know what it may repeat.
		MaxRetries:    -1,
		DialerRetries: 1,
		// One connection is all that a client is used for. The pool's size is 2
		// because go-redis starts a goroutine that re-dials for ever, and outlives
		// Close by a second, when as many dials have failed as the pool is big;
		// our clients are closed after the first.
		PoolSize:         2,
		PipelinePoolSize: -1,
		DialTimeout:      s.dialTimeout + s.answerTimeout, // TLS handshake included
		ReadTimeout:      s.answerTimeout,
		WriteTimeout:     s.answerTimeout,
		// ReadBufferSize is left alone: go-redis gives a PubSub 32 KiB whatever it
		// says. That is one read(2) for some 300 small messages, a few percent of what
		// they cost.
	}
}

// errTLS wraps whatever goes wrong between the TCP connection and the end of
// the TLS handshake.
var errTLS = errors.New("tls handshake")

// dial makes one connection and resolves the name anew for it. Raw is the
// socket under conn: closing it never blocks, while tls.Conn.Close may wait to
// say goodbye.
func (s *Server) dial(ctx context.Context) (conn, raw net.Conn, err error) {
	dialer := net.Dialer{Timeout: s.dialTimeout}
	raw, err = dialer.DialContext(ctx, s.network, s.addr)
	if err != nil || s.tls == nil {
		return raw, raw, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.answerTimeout)
	defer cancel()
	secure := tls.Client(raw, s.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, nil, fmt.Errorf("%w: %w", errTLS, err)
	}
	return secure, raw, nil
}

// isReply reports whether err is an error reply: Redis refused a command, and
// the connection lives.
func isReply(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply)
}
