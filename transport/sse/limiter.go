package sse

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A Crowd bounds the connections of a public server, streams and all others, so
// that the process keeps descriptors for Redis and for who looks after it. Past
// the bound newcomers are still answered, PassersBy at a time and quickly: whoever
// asks for a stream is told "not now". Without it the kernel would keep them waiting
// unheard, and a flood of connections that ask for nothing would cut the hub off
// from Redis.
//
// A nil Crowd has no bound.
type Crowd struct {
	most int64
	open atomic.Int64
}

// NewCrowd is a crowd of at most so many connections; 0: no bound.
func NewCrowd(most int) *Crowd {
	if most <= 0 {
		return nil
	}
	return &Crowd{most: int64(most)}
}

// Attend makes a server count its connections, and returns the listener to serve. It
// sets the server's ConnState, and goes before its ConnContext.
// The server's Handler must be or hold a Handler with this Crowd, which counts those
// that leave after they were detached.
func (c *Crowd) Attend(s *http.Server, l net.Listener) net.Listener {
	if c == nil {
		return l
	}
	s.ConnState = func(conn net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew: // before the next Accept
			if !hasPlace(conn) {
				c.open.Add(1)
			}
		case http.StateClosed:
			c.leave()
		}
	}
	before := s.ConnContext
	s.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if _, ok := accepted(conn).(*passerBy); ok {
			return context.WithValue(ctx, crowdedKey{}, true)
		}
		if before != nil {
			ctx = before(ctx, conn)
		}
		return ctx
	}
	return &crowdListener{Listener: l, crowd: c, places: make(chan struct{}, PassersBy), closed: make(chan struct{})}
}

// enter counts one more, if there is a place.
func (c *Crowd) enter() bool {
	if c == nil {
		return true
	}
	if c.open.Add(1) > c.most {
		c.open.Add(-1)
		return false
	}
	return true
}

func (c *Crowd) leave() {
	if c != nil {
		c.open.Add(-1)
	}
}

// IsShort reports whether fewer than a tenth of the places are left.
func (c *Crowd) IsShort() bool { return c != nil && c.open.Load() > c.most-c.most/10 }

// hasPlace reports whether a connection was counted by a front.
func hasPlace(conn net.Conn) bool {
	s, ok := accepted(conn).(*socket)
	return ok && s.placed
}

type crowdedKey struct{}

// isCrowded reports whether a request came in past the bound of the crowd.
func isCrowded(r *http.Request) bool { return r.Context().Value(crowdedKey{}) != nil }

// PassersBy is how many connections past the bound of a Crowd there are at most.
const PassersBy = 8

// passingTime is how long each of them may take to ask and to be answered.
const passingTime = time.Second

type crowdListener struct {
	net.Listener
	crowd  *Crowd
	places chan struct{} // one for each passer-by
	closed chan struct{}
	once   sync.Once
}

func (l *crowdListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || hasPlace(conn) || l.crowd.open.Load() < l.crowd.most {
		return conn, err
	}
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		conn.Close()
		return nil, net.ErrClosed
	}
	p := &passerBy{Conn: conn, until: time.Now().Add(passingTime), places: l.places}
	p.SetDeadline(p.until)
	return p, nil
}

func (l *crowdListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// A passerBy is a connection past the bound. No deadline prolongs its time.
type passerBy struct {
	net.Conn
	until  time.Time
	places chan struct{}
	once   sync.Once
}

func (p *passerBy) bound(t time.Time) time.Time {
	if t.IsZero() || t.After(p.until) {
		return p.until
	}
	return t
}

func (p *passerBy) SetDeadline(t time.Time) error      { return p.Conn.SetDeadline(p.bound(t)) }
func (p *passerBy) SetReadDeadline(t time.Time) error  { return p.Conn.SetReadDeadline(p.bound(t)) }
func (p *passerBy) SetWriteDeadline(t time.Time) error { return p.Conn.SetWriteDeadline(p.bound(t)) }

func (p *passerBy) Close() error {
	err := p.Conn.Close()
	p.once.Do(func() { <-p.places })
	return err
}
