package hub

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func hashOf(user string) uint64 { return maphash.String(tableSeed, user) }

// A ringRun compares a ring with a list of everything that was appended.
type ringRun struct {
	t       *testing.T
	random  *rand.Rand
	ring    ring
	entries []ringRunEntry // entries[i] has the number i+1, unless its user is ""
	clock   time.Duration
	when    []time.Duration // of entries
}

type ringRunEntry struct {
	user string
	ringEntry
}

func (r *ringRun) now() time.Duration { return r.clock }

// append appends a random entry, or lets a number pass.
func (r *ringRun) append() {
	r.clock += time.Duration(r.random.IntN(1000))
	e := ringRunEntry{ringEntry: ringEntry{number: uint64(len(r.entries) + 1)}}
	if r.random.IntN(4) > 0 {
		e.user = strings.Repeat(fmt.Sprint(r.random.IntN(5)), 1+r.random.IntN(40))
		e.topic = strings.Repeat("t", r.random.IntN(20))
		n := r.random.IntN(200)
		if r.random.IntN(20) == 0 {
			n = r.random.IntN(1 << (6 + r.random.IntN(10)))
		}
		if e.payload = randomText(r.random, n); r.random.IntN(10) == 0 {
			e.payload, e.gap = "", GapTooLarge
		}
		r.ring.append(hashOf(e.user)&3, e.user, e.ringEntry, r.now) // few chains, so that users share them
	}
	r.entries, r.when = append(r.entries, e), append(r.when, r.clock)
}

func randomText(random *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return string(b)
}

// want returns the entries of a user with numbers in (after, upTo].
func (r *ringRun) want(user string, after, upTo uint64) (list []ringEntry) {
	for _, e := range r.entries[:upTo] {
		if e.user == user && e.number > after {
			list = append(list, e.ringEntry)
		}
	}
	return list
}

// resume searches for the entries of a user in steps, between which others are appended.
func (r *ringRun) resume() {
	user, newest := "1", uint64(len(r.entries))
	if newest > 0 {
		if some := r.entries[r.random.IntN(len(r.entries))].user; some != "" {
			user = some
		}
	}
	after := newest - min(newest, uint64(r.random.IntN(200)))
	s := r.ring.search(hashOf(user)&3, user, after)
	for !r.ring.step(&s, 1+r.random.IntN(10)) {
		if r.random.IntN(3) == 0 {
			r.append()
		}
	}
	want := r.want(user, after, newest)
	for len(s.positions) > 0 {
		if r.random.IntN(10) == 0 {
			r.append()
		}
		e, ok := r.ring.oldest(&s)
		if !ok { // dropped since the search
			s.take()
			continue
		}
		if number, _ := r.ring.oldestNumber(&s); number != e.number {
			r.t.Fatalf("entry %d has the number %d", e.number, number)
		}
		for len(want) > 0 && want[0].number <= r.ring.lowWater {
			want = want[1:]
		}
		if len(want) == 0 || e != want[0] {
			r.t.Fatalf("after %d: got entry %d (%d bytes), want %v", after, e.number, len(e.payload), want)
		}
		want = want[1:]
		s.take()
	}
	for _, e := range want {
		if e.number > r.ring.lowWater {
			r.t.Fatalf("entry %d of user %s after %d is missing; all after %d are stored", e.number, user, after, r.ring.lowWater)
		}
	}
}

func (r *ringRun) check(limit int64) {
	if n := r.ring.bytes(); n > limit {
		r.t.Fatalf("%d bytes, limit %d", n, limit)
	}
	stored := 0
	for _, e := range r.entries {
		if e.user != "" && e.number > r.ring.lowWater {
			stored++
		}
	}
	if r.ring.entries != stored {
		r.t.Fatalf("%d entries, want %d", r.ring.entries, stored)
	}
	since, all := r.ring.reach()
	for i, e := range r.entries {
		if e.user != "" && e.number <= r.ring.lowWater && (all || r.when[i] > since) {
			r.t.Fatalf("entry %d of %d was dropped, but all since %d are stored (all: %v)", e.number, r.when[i], since, all)
		}
	}
}

// Everything later than the low-water mark is found, in order and unchanged; and nothing else.
func TestRingHasAllEntriesAfterItsLowWater(t *testing.T) {
	runs := 300
	if testing.Short() {
		runs /= 10
	}
	for seed := range runs {
		random := rand.New(rand.NewPCG(uint64(seed), 0))
		limit := int64(random.IntN(1 << (4 + random.IntN(16))))
		r := &ringRun{t: t, random: random, ring: newRing(limit)}
		for range 300 {
			if random.IntN(5) == 0 {
				r.resume()
			} else {
				r.append()
			}
			r.check(limit)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// A ring of the default size drops little at a time, and uses almost all of its bytes.
func TestRingUsesItsBytes(t *testing.T) {
	const limit, size = 4 << 20, 24 + 8 + 200
	r := newRing(limit)
	payload := strings.Repeat("x", 200)
	least := 1 << 30
	for n := range 100_000 {
		user := fmt.Sprintf("%08d", n%5000)
		r.append(hashOf(user), user, ringEntry{number: uint64(n + 1), payload: payload}, func() time.Duration { return 0 })
		if n > 50_000 {
			least = min(least, r.entries)
		}
	}
	if want := limit * 96 / 100 / size; least < want {
		t.Errorf("%d entries are always stored, want %d", least, want)
	}
}

// Invariant 8: an absent user costs only the bytes of his messages.
func TestInvariant8RingCostsNoObjectPerUser(t *testing.T) {
	r := newRing(4 << 20)
	number := uint64(0)
	users := make([]string, 100_000)
	for i := range users {
		users[i] = fmt.Sprint("user ", i)
	}
	publish := func() {
		number++
		user := users[number%uint64(len(users))]
		r.append(hashOf(user), user, ringEntry{number: number, topic: "news", payload: "a message"}, func() time.Duration { return 0 })
	}
	for range 200_000 { // all segments are in use
		publish()
	}
	objects := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapObjects
	}
	before := objects()
	if n := testing.AllocsPerRun(200_000, publish); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
	if after := objects(); after > before+100 {
		t.Errorf("%d objects before, %d after", before, after)
	}
	runtime.KeepAlive(&r)
}

// The search of a user looks at few entries of others.
func TestRingSearchSkipsOtherUsers(t *testing.T) {
	r := newRing(4 << 20)
	for n := range 50_000 {
		user := fmt.Sprint("user ", n%5000)
		r.append(hashOf(user), user, ringEntry{number: uint64(n + 1), payload: strings.Repeat("x", 200)}, func() time.Duration { return 0 })
	}
	r.append(0, "alone", ringEntry{number: 50_001}, func() time.Duration { return 0 })
	r.chains[0] = 0
	r.append(0, "alone", ringEntry{number: 50_002}, func() time.Duration { return 0 })
	if s := r.search(0, "alone", 0); !r.step(&s, 1) {
		t.Error("the search of a chain with one entry looks at more")
	}
	var looks []int
	found := 0
	for i := range 1000 {
		user := fmt.Sprint("user ", i)
		s := r.search(hashOf(user), user, r.lowWater)
		n := 1
		for !r.step(&s, 1) {
			n++
		}
		found += len(s.positions)
		looks = append(looks, n)
	}
	slices.Sort(looks)
	if looks[500] > 16 || looks[999] > 64 {
		t.Errorf("a search looks at %d entries (median), at most %d; %d are stored", looks[500], looks[999], r.entries)
	}
	if found < 2*1000 {
		t.Errorf("%d entries of 1,000 users found", found)
	}
}

// An entry that is larger than the ring leaves it empty, like one after which all earlier ones were dropped.
func TestRingWithoutRoom(t *testing.T) {
	now := func() time.Duration { return 0 }
	for _, limit := range []int64{-1, 0, 100, 1 << 12} {
		r := newRing(limit)
		r.append(1, "1", ringEntry{number: 1, payload: "small"}, now)
		r.append(1, "1", ringEntry{number: 2, payload: strings.Repeat("x", 1<<20)}, now)
		s := r.search(1, "1", 0)
		if !r.step(&s, 1) || len(s.positions) > 0 || r.lowWater != 2 {
			t.Errorf("limit %d: %d entries found, low-water mark %d", limit, len(s.positions), r.lowWater)
		}
		if since, all := r.reach(); all || since < time.Hour {
			t.Errorf("limit %d: reaches back to %v, all: %v", limit, since, all)
		}
		r.append(1, "1", ringEntry{number: 3, payload: "small"}, now)
		s = r.search(1, "1", 2)
		r.step(&s, 10)
		if e, ok := r.oldest(&s); ok != (limit == 1<<12) || ok && e.number != 3 {
			t.Errorf("limit %d: %v, %v", limit, e, ok)
		}
	}
}

const ringBench = 32 << 20 // half of the default of Config.HistoryBytes

// One message of 200 bytes for one of 100,000 absent users, including the hash of the user. The metrics say how far back
// a full ring of 32 MiB reaches at a number of messages per second.
func BenchmarkRingAppend(b *testing.B) {
	r, payload := newRing(ringBench), strings.Repeat("x", 200)
	users := make([]string, 100_000)
	for i := range users {
		users[i] = fmt.Sprint(10_000_000 + rand.IntN(100_000_000))
	}
	born := time.Now()
	now := func() time.Duration { return time.Since(born) }
	number := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		number++
		user := users[number%uint64(len(users))]
		r.append(hashOf(user), user, ringEntry{number: number, topic: "activity", payload: payload}, now)
	}
	if r.dropped {
		stored := float64(number - r.lowWater)
		b.ReportMetric(stored, "entries")
		for _, rate := range []float64{1000, 5000, 20_000} {
			b.ReportMetric(stored/rate, fmt.Sprintf("s@%v/s", rate))
		}
	}
}

// A client of one of 100,000 absent users resumes: search, and read all that a full ring of 32 MiB has.
func BenchmarkRingResume(b *testing.B) {
	r, payload := newRing(ringBench), strings.Repeat("x", 200)
	users := make([]string, 100_000)
	for i := range users {
		users[i] = fmt.Sprint(10_000_000 + i)
	}
	for n := range 400_000 {
		user := users[rand.IntN(len(users))]
		r.append(hashOf(user), user, ringEntry{number: uint64(n + 1), topic: "activity", payload: payload}, func() time.Duration { return 0 })
	}
	found := 0
	b.ReportAllocs()
	for b.Loop() {
		user := users[rand.IntN(len(users))]
		s := r.search(hashOf(user), user, r.lowWater)
		for !r.step(&s, 1024) {
		}
		for ; len(s.positions) > 0; s.take() {
			r.oldest(&s)
			found++
		}
	}
	b.ReportMetric(float64(found)/float64(b.N), "entries/op")
}
