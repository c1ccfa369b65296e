package load

import (
	"math/rand/v2"
	"testing"
)

func TestLedgerCountsErrors(t *testing.T) {
	const gap = 0 // instead of a number: a gap is received
	for _, c := range []struct {
		name                              string
		received                          []uint32
		sent                              uint32
		lost, announced, late, duplicates uint64
	}{
		{name: "in order", received: []uint32{1, 2, 3}, sent: 3},
		{name: "one missed", received: []uint32{1, 3}, sent: 3, lost: 1},
		{name: "the first missed", received: []uint32{2}, sent: 2, lost: 1},
		{name: "the last missed", received: []uint32{1}, sent: 3, lost: 2},
		{name: "nothing received", sent: 5, lost: 5},
		{name: "a gap before the next", received: []uint32{1, gap, 4}, sent: 4, announced: 2},
		{name: "a gap after the next", received: []uint32{1, 4, gap}, sent: 4, lost: 2},
		{name: "a gap at the end", received: []uint32{1, gap}, sent: 3, announced: 2},
		{name: "a gap does not cover later losses", received: []uint32{1, gap, 3, 5}, sent: 5, announced: 1, lost: 1},
		{name: "duplicated immediately", received: []uint32{1, 1, 2}, sent: 2, duplicates: 1},
		{name: "duplicated later", received: []uint32{1, 2, 3, 1}, sent: 3, duplicates: 1},
		{name: "swapped", received: []uint32{2, 1, 3}, sent: 3, late: 1},
		{name: "late, then duplicated", received: []uint32{1, 4, 3, 3}, sent: 4, lost: 1, late: 1, duplicates: 1},
		{name: "from the middle of a hole", received: []uint32{6, 3}, sent: 6, lost: 4, late: 1},
		{name: "sent, but never confirmed", received: []uint32{1, 2, 5}, sent: 3, lost: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l ledger
			var late, duplicates uint64
			for _, seq := range c.received {
				if seq == gap {
					l.gap = true
					continue
				}
				switch v, _ := l.receive(seq); v {
				case duplicate:
					duplicates++
				case lateArrival:
					late++
				}
			}
			lost, announced := l.missing(c.sent)
			if lost != c.lost || announced != c.announced || late != c.late || duplicates != c.duplicates {
				t.Errorf("lost %d, announced %d, late %d, duplicated %d; want %d, %d, %d, %d", lost, announced, late, duplicates, c.lost, c.announced, c.late, c.duplicates)
			}
		})
	}
}

// The ledger agrees with a model that stores every number.
func TestLedgerAgreesWithASet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var l ledger
		received := make(map[uint32]bool)
		var top, skippedSum, late uint32
		for range random.IntN(30) {
			seq := 1 + random.Uint32N(20)
			want := inOrder
			switch {
			case received[seq]:
				want = duplicate
			case seq < top:
				want = lateArrival
				late++
			}
			v, skipped := l.receive(seq)
			if v != want {
				t.Fatalf("%d after %v: %v, want %v", seq, received, v, want)
			}
			skippedSum += skipped
			received[seq], top = true, max(top, seq)
		}
		if lost, _ := l.missing(20); lost != uint64(20-len(received)) {
			t.Fatalf("%d lost of 20 with %v", lost, received)
		}
		if int(skippedSum-late) != int(top)-len(received) {
			t.Fatalf("%d skipped, %d of them late, with %v", skippedSum, late, received)
		}
	}
}
