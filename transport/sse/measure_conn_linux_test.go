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

// A memoryConn is a peer that takes everything at once. It checks what it is sent,
// and keeps nothing of it.
type memoryConn struct {
	// Immutable.
	peers *peers
	user  uint32

	// Owned by the stream's writer.
	heard    uint32 // number of the last message to its user
	heardAll uint32 // … and to everybody

	_ [unsafe.Sizeof(pollConn{}) - 16 - unsafe.Sizeof((*peers)(nil))]byte // as large as what it stands for
}

// peers are what all memoryConns have in common.
type peers struct {
	delivered atomic.Int64 // messages
	pings     atomic.Int64
	byes      atomic.Int64
	closed    atomic.Int64
	lost      atomic.Int64 // skipped
	wrong     atomic.Int64 // messages that came twice, late or to another user, and all else that nobody sent
	example   atomic.Value // string: the first that was wrong

	target  atomic.Int64  // delivered messages at which reached is told
	reached chan struct{} // of one: who waits looks again anyway

	// Made while no message is on its way, one item for each that is to be timed. Due is
	// written before it is published, late by the one writer that it goes to.
	began     time.Time
	due, late []time.Duration // since began; from due to written
}

// A stamp is what a message carries: numbers of a fixed width, and then padding.
type stamp struct {
	user   uint32
	number uint32 // in the user's sequence, from 1
	item   uint32 // of due and late
}

const (
	everybody  = 1<<32 - 1 // a user
	untimed    = 1<<32 - 1 // an item
	digits     = 10
	stampBytes = 3 * digits
)

// payload is a message of size bytes.
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

// await waits until so many messages were delivered; false: they were not in time.
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

// take takes in one block and reports whether it is a message.
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
	heard := &w.heard
	switch m.user {
	case w.user:
	case everybody:
		heard = &w.heardAll
	default:
		w.peers.isWrong(w.user, fmt.Sprint(m))
		return
	}
	if m.number <= *heard {
		w.peers.isWrong(w.user, fmt.Sprint(m))
		return
	}
	w.peers.lost.Add(int64(m.number - *heard - 1))
	*heard = m.number
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
