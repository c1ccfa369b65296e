package load

import "slices"

// A ledger records which numbers of the sequence 1, 2, 3… a stream has received. Without missing messages, it does not
// allocate.
type ledger struct {
	highest uint32 // highest number received
	gap     bool   // a gap was announced after it
	holes   []hole // missing numbers below highest, in order
}

// A hole is a range of missing numbers. It is announced if a gap arrived before the next message.
type hole struct {
	first, last uint32
	announced   bool
}

type verdict int

const (
	inOrder     verdict = iota
	lateArrival         // after a higher one
	duplicate           // received before
)

// receive records the number of a message. It returns its verdict, and how many numbers were skipped immediately before it.
func (l *ledger) receive(seq uint32) (v verdict, skipped uint32) {
	if seq > l.highest {
		skipped = seq - l.highest - 1
		if skipped > 0 {
			l.holes = append(l.holes, hole{l.highest + 1, seq - 1, l.gap})
		}
		l.highest, l.gap = seq, false
		return inOrder, skipped
	}
	for i, h := range l.holes {
		if seq < h.first || seq > h.last {
			continue
		}
		rest := make([]hole, 0, 2)
		if h.first < seq {
			rest = append(rest, hole{h.first, seq - 1, h.announced})
		}
		if seq < h.last {
			rest = append(rest, hole{seq + 1, h.last, h.announced})
		}
		l.holes = slices.Replace(l.holes, i, i+1, rest...)
		return lateArrival, 0
	}
	return duplicate, 0
}

// missing returns how many of the numbers up to sent are missing.
func (l *ledger) missing(sent uint32) (unannounced, announced uint64) {
	add := func(first, last uint32, isAnnounced bool) {
		if n := uint64(last) - uint64(first) + 1; isAnnounced {
			announced += n
		} else {
			unannounced += n
		}
	}
	for _, h := range l.holes {
		if last := min(h.last, sent); h.first <= last {
			add(h.first, last, h.announced)
		}
	}
	if sent > l.highest {
		add(l.highest+1, sent, l.gap)
	}
	return unannounced, announced
}
