//go:build measure

package sse

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"usercast/hub"
)

// A memoryConn is a peer that accepts everything immediately. It checks the bytes and discards
// them.
type memoryConn struct {
	// Immutable.
	peers *peers
	user  uint32

	// Owned by the stream's writer.
	last      uint32 // number of the last message to its user
	lastToAll uint32 // number of the last broadcast

	_ [unsafe.Sizeof(pollConn{}) - 16 - unsafe.Sizeof((*peers)(nil))]byte // for the size of a pollConn
}

// peers is the state that all memoryConns share.
type peers struct {
	delivered atomic.Int64 // messages
	pings     atomic.Int64
	byes      atomic.Int64
	closed    atomic.Int64
	lost      atomic.Int64 // skipped
	wrong     atomic.Int64 // messages that arrived twice, out of order or for another user, and unknown blocks
	example   atomic.Value // string: the first wrong one

	target  atomic.Int64  // delivered messages at which reached is signaled
	reached chan struct{} // with a buffer of one: the waiting goroutine checks again anyway

	// Allocated while no message is in flight, one item per timed message. due is written before the
	// message is published, late by the writer that delivers it.
	began     time.Time
	due, late []time.Duration // due: since began; late: from due until written
}

// A stamp is the content of a message: numbers of a fixed width, followed by padding.
type stamp struct {
	user   uint32
	number uint32 // in the user's sequence, from 1
	item   uint32 // of due and late
}

const (
	allUsers   = 1<<32 - 1 // a user
	untimed    = 1<<32 - 1 // an item
	digits     = 10
	stampBytes = 3 * digits
)

// payload returns a message of size bytes.
func (m stamp) payload(size int) string {
	return fmt.Sprintf("%0*d%0*d%0*d", digits, m.user, digits, m.number, digits, m.item) + strings.Repeat("x", size-stampBytes)
}

func readStamp(b []byte) (m stamp, ok bool) {
	for i, field := range []*uint32{&m.user, &m.number, &m.item} {
		n := uint64(0)
		for _, c := range b[i*digits : (i+1)*digits] {
			n = n*10 + uint64(c-'0')
		}
		if n > 1<<32-1 {
			return m, false
		}
		*field = uint32(n)
	}
	return m, true
}

// await waits until n messages were delivered. It returns false after a timeout.
func (p *peers) await(n int64, patience time.Duration) bool {
	p.target.Store(n)
	giveUp := time.NewTimer(patience)
	defer giveUp.Stop()
	for p.delivered.Load() < n {
		select {
		case <-p.reached:
		case <-giveUp.C:
			return false
		}
	}
	return true
}

func (w *memoryConn) tryWrite(bufs *net.Buffers) (int64, error) { return w.write(bufs) }

func (w *memoryConn) write(bufs *net.Buffers) (n int64, err error) {
	var messages int64
	for _, b := range *bufs {
		n += int64(len(b))
		if w.take(b) {
			messages++
		}
	}
	*bufs = (*bufs)[len(*bufs):]
	if messages > 0 {
		w.peers.count(messages)
	}
	return n, nil
}

func (p *peers) count(messages int64) {
	n := p.delivered.Add(messages)
	if target := p.target.Load(); n >= target && n-messages < target {
		select {
		case p.reached <- struct{}{}:
		default:
		}
	}
}

// take checks one block and reports whether it is a message.
func (w *memoryConn) take(b []byte) bool {
	switch {
	case bytes.HasPrefix(b, []byte("data: ")):
		if data := b[len("data: "):]; len(data) >= stampBytes {
			if m, ok := readStamp(data); ok {
				w.message(m)
				return true
			}
		}
	case bytes.Equal(b, keepAlive), bytes.HasPrefix(b, []byte("event: ping\n")):
		w.peers.pings.Add(1)
		return false
	case bytes.HasPrefix(b, []byte("HTTP/1.1 200 OK\r\n")):
		return false
	case bytes.Contains(b, []byte("event: bye\n")):
		w.peers.byes.Add(1)
		return false
	}
	w.peers.isWrong(w.user, string(b))
	return false
}

func (w *memoryConn) message(m stamp) {
	last := &w.last
	switch m.user {
	case w.user:
	case allUsers:
		last = &w.lastToAll
	default:
		w.peers.isWrong(w.user, fmt.Sprint(m))
		return
	}
	if m.number <= *last {
		w.peers.isWrong(w.user, fmt.Sprint(m))
		return
	}
	w.peers.lost.Add(int64(m.number - *last - 1))
	*last = m.number
	if m.item != untimed {
		w.peers.late[m.item] = time.Since(w.peers.began) - w.peers.due[m.item]
	}
}

func (p *peers) isWrong(user uint32, what string) {
	p.wrong.Add(1)
	p.example.CompareAndSwap(nil, "user "+strconv.FormatUint(uint64(user), 10)+": "+what)
}

func (w *memoryConn) interrupt()              {}
func (w *memoryConn) reason(error) hub.Reason { return hub.ReasonFailed }
func (w *memoryConn) close()                  { w.peers.closed.Add(1) }
