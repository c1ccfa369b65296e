package sse

import (
	"net"
	"net/http"
	"testing"
	"time"

	"usercast/auth"
	"usercast/hub"
)

// A ping with an id costs neither memory of the stream nor an allocation: with pub/sub, a quiet stream receives one after
// each new marker.
func TestPingsDoNotAllocate(t *testing.T) {
	for name, query := range map[string]query{"comment": {}, "event": {pingEvents: true}, "resumed": {resume: "abcdefghijklm-1"}} {
		for _, moves := range []bool{false, true} {
			h := hub.NewPubSub(hub.Config{Encode: EncodeEntry, BroadcastUser: "*"})
			handler := New(Config{Hub: h.Hub, Authenticate: auth.Insecure})
			s := newStream(handler, new(http.Request), query, time.Time{})
			var err error
			if s.client, err = h.Register(query.options("42", nil, s)); err != nil {
				t.Fatal(err)
			}
			s.opening(query)
			bytes := new(sink)
			s.transport = bytes
			w := new(writer)
			for frames := []*hub.Frame{}; frames != nil; {
				frames, _ = s.client.Take(nil) // the gap of a client that resumes
			}
			ping := func() {
				if moves {
					h.Publish(hub.User("7"), "", "")
				}
				s.written.Store(-int64(time.Hour)) // a ping is due
				s.ping(w)
			}
			ping() // allocates the buffers of the writer
			before := *bytes
			const runs = 100
			if n := testing.AllocsPerRun(runs, ping); n != 0 {
				t.Errorf("%s, the position moves: %v: %v allocations", name, moves, n)
			}
			if each := int(*bytes-before) / (runs + 1); moves && each < len("event: ping\ndata: {}\nid: abcdefgh-1\n\n") {
				t.Errorf("%s, the position moves: %v: %d bytes per ping", name, moves, each)
			}
			if s.own != nil && moves {
				t.Errorf("%s: the stream keeps the client's id", name)
			}
			s.client.End(hub.ReasonClosed)
			handler.wheel.remove(s)
			h.Close()
		}
	}
}

// A sink is a transport that counts bytes.
type sink int64

func (s *sink) tryWrite(bufs *net.Buffers) (n int64, err error) {
	for _, b := range *bufs {
		n += int64(len(b))
	}
	*s += sink(n)
	*bufs = (*bufs)[:0]
	return n, nil
}

func (s *sink) write(bufs *net.Buffers) (int64, error) { return s.tryWrite(bufs) }
func (s *sink) interrupt()                             {}
func (s *sink) reason(error) hub.Reason                { return hub.ReasonFailed }
func (s *sink) close()                                 {}
