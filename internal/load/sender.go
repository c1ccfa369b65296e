package load

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// A sender numbers messages and passes them to the publisher.
type sender struct {
	run       *run
	publisher Publisher
	choice    *rand.Rand
	names     []string // of users
	payload   []byte

	targets   []int32 // the sequence of each message of the run
	expected  int64   // deliveries of the run
	abandoned int64   // of these, deliveries that were missing at the end of earlier loops

	confirmed    atomic.Int64 // messages that Redis has confirmed
	noSubscriber atomic.Int64
	failure      atomic.Pointer[error]
	done         chan struct{}
	closing      sync.Once
}

// err returns the error that ended publishing, or nil.
func (s *sender) err() error {
	if p := s.failure.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *sender) fail(err error) { s.failure.CompareAndSwap(nil, &err) }

func newSender(r *run, p Publisher) *sender {
	s := &sender{
		run: r, publisher: p,
		choice: rand.New(rand.NewPCG(1, 2)), // the same users in each run, for comparable results
		names:  make([]string, r.cfg.receivers()),
		done:   make(chan struct{}),
	}
	for i := range s.names {
		s.names[i] = userName(i)
	}
	if r.cfg.Broadcast {
		s.names[0] = userName(allUsers)
	}
	go s.receive()
	return s
}

// receive receives the responses of Redis until the publisher is closed or fails.
func (s *sender) receive() {
	defer close(s.done)
	for {
		subscribers, err := s.publisher.Receive()
		if err != nil {
			s.fail(err)
			return
		}
		if subscribers == 0 {
			s.noSubscriber.Add(1)
		}
		s.confirmed.Add(1)
	}
}

// close closes the publisher and waits until receive has ended.
func (s *sender) close() {
	s.closing.Do(func() {
		s.publisher.Close()
		<-s.done
	})
}

// unconfirmed returns how many messages of each sequence Redis has not confirmed. Responses arrive in order, so these are the
// last messages.
func (s *sender) unconfirmed() []uint32 {
	n := make([]uint32, len(s.names))
	for _, target := range s.targets[min(int(s.confirmed.Load()), len(s.targets)):] {
		n[target]++
	}
	return n
}

// send publishes n messages. due returns when each message was due, on the clock of the run.
func (s *sender) send(n int, due func(i int) int64) error {
	t := s.run.tally
	for i := range n {
		target := 0
		if len(s.names) > 1 {
			target = s.choice.IntN(len(s.names))
		}
		m := stamp{user: target, index: len(s.targets), due: due(i)}
		if t.broadcast {
			m.user = allUsers
		}
		var streams int64
		m.seq, streams = t.number(target)
		s.targets = append(s.targets, int32(target))
		s.expected += streams
		s.payload = appendPayload(s.payload[:0], t.start, m, s.run.cfg.Size)
		if err := s.publisher.Publish(s.names[target], s.payload); err != nil {
			return err
		}
	}
	return s.publisher.Flush()
}
