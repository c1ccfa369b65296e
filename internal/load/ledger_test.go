package load

import (
	"math/rand/v2"
	"testing"
)

func TestLedgerFindsWhatIsWrong(t *testing.T) {
	const gap = 0 // in place of a number: a gap is announced
	for _, c := range []struct {
		name                    string
		heard                   []uint32
		sent                    uint32
		lost, told, late, twice uint64
	}{
		{name: "in order", heard: []uint32{1, 2, 3}, sent: 3},
		{name: "one missed", heard: []uint32{1, 3}, sent: 3, lost: 1},
		{name: "the first missed", heard: []uint32{2}, sent: 2, lost: 1},
		{name: "the last missed", heard: []uint32{1}, sent: 3, lost: 2},
		{name: "nothing heard", sent: 5, lost: 5},
		{name: "a gap before the next", heard: []uint32{1, gap, 4}, sent: 4, told: 2},
		{name: "a gap after the next", heard: []uint32{1, 4, gap}, sent: 4, lost: 2},
		{name: "a gap at the end", heard: []uint32{1, gap}, sent: 3, told: 2},
		{name: "a gap covers no later loss", heard: []uint32{1, gap, 3, 5}, sent: 5, told: 1, lost: 1},
		{name: "doubled at once", heard: []uint32{1, 1, 2}, sent: 2, twice: 1},
		{name: "doubled later", heard: []uint32{1, 2, 3, 1}, sent: 3, twice: 1},
		{name: "swapped", heard: []uint32{2, 1, 3}, sent: 3, late: 1},
		{name: "late, then doubled", heard: []uint32{1, 4, 3, 3}, sent: 4, lost: 1, late: 1, twice: 1},
		{name: "from the middle of a hole", heard: []uint32{6, 3}, sent: 6, lost: 4, late: 1},
		{name: "sent, but never confirmed", heard: []uint32{1, 2, 5}, sent: 3, lost: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l ledger
			var late, twice uint64
			for _, seq := range c.heard {
				if seq == gap {
					l.gap = true
					continue
				}
				switch v, _ := l.receive(seq); v {
				case doubled:
					twice++
				case lateArrival:
					late++
				}
			}
			lost, told := l.missing(c.sent)
			if lost != c.lost || told != c.told || late != c.late || twice != c.twice {
				t.Errorf("lost %d, announced %d, late %d, doubled %d; want %d, %d, %d, %d", lost, told, late, twice, c.lost, c.told, c.late, c.twice)
			}
		})
	}
}

// The same against a model that remembers every number.
func TestLedgerAgreesWithASet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var l ledger
		heard := make(map[uint32]bool)
		var top, skippedSum, late uint32
		for range random.IntN(30) {
			seq := 1 + random.Uint32N(20)
			want := inOrder
			switch {
			case heard[seq]:
				want = doubled
			case seq < top:
				want = lateArrival
				late++
			}
			v, skipped := l.receive(seq)
			if v != want {
				t.Fatalf("%d after %v: %v, want %v", seq, heard, v, want)
			}
			skippedSum += skipped
			heard[seq], top = true, max(top, seq)
		}
		if lost, _ := l.missing(20); lost != uint64(20-len(heard)) {
			t.Fatalf("%d lost of 20 with %v", lost, heard)
		}
		if int(skippedSum-late) != int(top)-len(heard) {
			t.Fatalf("%d skipped, %d of them late, with %v", skippedSum, late, heard)
		}
	}
}
