package load

import "slices"

// A ledger is what one stream has received of the sequence 1, 2, 3… that was sent to
// its user. An undisturbed one is two words.
type ledger struct {
	highest uint32 // number so far
	gap     bool   // a gap was announced after it
	holes   []hole // missed below highest, in order
}

// A hole is a run of numbers that were missed. Announced: a gap came before the
// next message.
type hole struct {
	first, last uint32
	announced   bool
}

type verdict int

const (
	inOrder     verdict = iota
	lateArrival         // after a higher one
	doubled             // a second time
)

// receive takes the next number that arrived and says what it is, and how many numbers
// were skipped just before it.
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
	return doubled, 0
}

// missing is what is lost when the numbers up to sent were sent and nothing more
// will come.
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
