package hub

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func noTime() time.Duration { return 0 }

// A ringRun compares a ring with a list of everything that was appended.
type ringRun struct {
	t       *testing.T
	random  *rand.Rand
	ring    ring
	entries []ringRunEntry // entries[i] has the number i+1, unless its recipient is zero
	clock   time.Duration
	when    []time.Duration // of entries
}

type ringRunEntry struct {
	to Recipient
	Entry
}

func (r *ringRun) now() time.Duration { return r.clock }

// append appends a random entry, or lets a number pass.
func (r *ringRun) append() {
	r.clock += time.Duration(r.random.IntN(1000))
	e := ringRunEntry{Entry: Entry{ID: ID{Ms: uint64(len(r.entries) + 1)}}}
	if r.random.IntN(4) > 0 {
		e.to = Recipient{strings.Repeat(fmt.Sprint(r.random.IntN(4)), 1+r.random.IntN(40)), r.random.IntN(2) == 0}
		e.Topic = strings.Repeat("t", r.random.IntN(20))
		n := r.random.IntN(200)
		if r.random.IntN(20) == 0 {
			n = r.random.IntN(1 << (6 + r.random.IntN(10)))
		}
		if e.Payload = randomText(r.random, n); r.random.IntN(10) == 0 {
			e.Payload, e.Gap = "", GapTooLarge
		}
		r.ring.append(hashOf(e.to.Name)&3, e.to, &e.Entry) // few chains, so that owners share them
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

// want returns the entries of the owners of a search, with numbers later than after.
func (r *ringRun) want(owners map[Recipient]uint64, after uint64) (list []Entry) {
	for _, e := range r.entries {
		if e.ID.Ms > after && e.ID.Ms <= owners[e.to] {
			list = append(list, e.Entry)
		}
	}
	return list
}

// owners returns some recipients, and a number up to which the entries of each are searched.
func (r *ringRun) owners(after uint64) map[Recipient]uint64 {
	owners := make(map[Recipient]uint64)
	for range r.random.IntN(6) {
		of := Recipient{"1", r.random.IntN(2) == 0}
		if len(r.entries) > 0 {
			if some := r.entries[r.random.IntN(len(r.entries))].to; some.Name != "" {
				of = some
			}
		}
		owners[of] = after + uint64(r.random.IntN(len(r.entries)-int(after)+1))
	}
	return owners
}

// resume searches for the entries of some owners in steps, between which others are appended. A search that finds only a part
// is repeated.
func (r *ringRun) resume() {
	newest := uint64(len(r.entries))
	after := newest - min(newest, uint64(r.random.IntN(200)))
	owners := r.owners(after)
	want := r.want(owners, after)
	begin := func() *ringSearch {
		var list []ringOwner
		for of, upTo := range owners {
			list = append(list, r.ring.owner(hashOf(of.Name)&3, of, upTo))
		}
		s := r.ring.search(after, list)
		r.ring.maxFound = 2 + r.random.IntN(40)
		for !r.ring.step(s, 1+r.random.IntN(10)) {
			if len(s.found) > r.ring.maxFound {
				r.t.Fatalf("a search for at most %d entries has found %d", r.ring.maxFound, len(s.found))
			}
			for range r.random.IntN(1<<r.random.IntN(7)) / 8 {
				r.append()
			}
		}
		return s
	}
	s := begin()
	for done := false; !done; {
		if s.upTo <= after {
			s = begin()
		}
		if r.random.IntN(10) == 0 {
			r.append()
		}
		if r.random.IntN(10) == 0 { // the reader has skipped some
			after = min(newest, s.upTo, after+uint64(r.random.IntN(20)))
		}
		limit := min(newest, s.upTo, after+uint64(r.random.IntN(50)))
		number, ok := r.ring.peek(s, after)
		var e Entry
		if ok = ok && number <= limit; ok {
			e = r.ring.take(s)
		}
		for len(want) > 0 && want[0].ID.Ms <= max(r.ring.lowWater, after) {
			want = want[1:]
		}
		switch {
		case ok && (len(want) == 0 || e != want[0]):
			r.t.Fatalf("in (%d, %d]: got entry %d (%d bytes), want %v", after, limit, e.ID.Ms, len(e.Payload), want)
		case ok:
			after, want = e.ID.Ms, want[1:]
		case len(want) > 0 && want[0].ID.Ms <= limit:
			r.t.Fatalf("entry %d of %v in (%d, %d] is missing; all after %d are stored", want[0].ID.Ms, owners, after, limit, r.ring.lowWater)
		case limit == newest:
			done = true
		default:
			after = limit
		}
	}
}

func (r *ringRun) check(limit int64) {
	used := int64(8 * len(r.ring.chains))
	for _, s := range r.ring.segments {
		used += int64(len(s.bytes))
	}
	if n := r.ring.bytes; n > limit || n != used {
		r.t.Fatalf("%d bytes, and %d are in use; limit %d", n, used, limit)
	}
	stored := 0
	for _, e := range r.entries {
		if e.to != (Recipient{}) && e.ID.Ms > r.ring.lowWater {
			stored++
		}
	}
	if r.ring.entries != stored {
		r.t.Fatalf("%d entries, want %d", r.ring.entries, stored)
	}
	since, all := r.ring.reach()
	for i, e := range r.entries {
		if e.to != (Recipient{}) && e.ID.Ms <= r.ring.lowWater && (all || r.when[i] > since) {
			r.t.Fatalf("entry %d of %d was dropped, but all since %d are stored (all: %v)", e.ID.Ms, r.when[i], since, all)
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
		r := &ringRun{t: t, random: random}
		r.ring = newRing(limit, r.now, func() {})
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

// A publisher that enters a new segment does not wait long until it is allocated, however large the ring is.
func TestRingSegmentsAreSmall(t *testing.T) {
	for limit := int64(1 << 10); limit < 1<<40; limit *= 2 {
		r := newRing(limit, noTime, func() {})
		if r.segmentSize > 4<<20 || limit > 16<<10 && int64(r.segmentSize) > limit/ringSegments {
			t.Errorf("limit %d: segments of %d bytes", limit, r.segmentSize)
		}
	}
}

// A ring of the default size drops little at a time, and uses almost all of its bytes.
func TestRingUsesItsBytes(t *testing.T) {
	const limit, size = 4 << 20, 24 + 8 + 200
	r := newRing(limit, noTime, func() {})
	payload := strings.Repeat("x", 200)
	least := 1 << 30
	for n := range 100_000 {
		user := fmt.Sprintf("%08d", n%5000)
		r.append(hashOf(user), User(user), &Entry{ID: ID{Ms: uint64(n + 1)}, Payload: payload})
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
	r := newRing(4<<20, noTime, func() {})
	number := uint64(0)
	users := make([]string, 100_000)
	for i := range users {
		users[i] = fmt.Sprint("user ", i)
	}
	publish := func() {
		number++
		user := users[number%uint64(len(users))]
		r.append(hashOf(user), User(user), &Entry{ID: ID{Ms: number}, Topic: "news", Payload: "a message"})
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
	r := newRing(4<<20, noTime, func() {})
	for n := range 50_000 {
		user := fmt.Sprint("user ", n%5000)
		r.append(hashOf(user), User(user), &Entry{ID: ID{Ms: uint64(n + 1)}, Payload: strings.Repeat("x", 200)})
	}
	r.append(0, User("alone"), &Entry{ID: ID{Ms: 50_001}})
	r.chains[0] = 0
	r.append(0, User("alone"), &Entry{ID: ID{Ms: 50_002}})
	if s := r.search(0, []ringOwner{r.owner(0, User("alone"), math.MaxUint64)}); !r.step(s, 1) {
		t.Error("the search of a chain with one entry looks at more")
	}
	var looks []int
	found := 0
	for i := range 1000 {
		user := fmt.Sprint("user ", i)
		s := r.search(r.lowWater, []ringOwner{r.owner(hashOf(user), User(user), math.MaxUint64)})
		n := 1
		for !r.step(s, 1) {
			n++
		}
		found += len(s.found)
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
	for _, limit := range []int64{-1, 0, 100, 1 << 12} {
		r := newRing(limit, noTime, func() {})
		r.append(1, User("1"), &Entry{ID: ID{Ms: 1}, Payload: "small"})
		r.append(1, User("1"), &Entry{ID: ID{Ms: 2}, Payload: strings.Repeat("x", 1<<20)})
		s := r.search(0, []ringOwner{r.owner(1, User("1"), math.MaxUint64)})
		if !r.step(s, 1) || len(s.found) > 0 || r.lowWater != 2 {
			t.Errorf("limit %d: %d entries found, low-water mark %d", limit, len(s.found), r.lowWater)
		}
		if since, all := r.reach(); all || since < time.Hour {
			t.Errorf("limit %d: reaches back to %v, all: %v", limit, since, all)
		}
		r.append(1, User("1"), &Entry{ID: ID{Ms: 3}, Payload: "small"})
		s = r.search(2, []ringOwner{r.owner(1, User("1"), math.MaxUint64)})
		r.step(s, 10)
		if number, ok := r.peek(s, 0); ok != (limit == 1<<12) || ok && number != 3 {
			t.Errorf("limit %d: %d, %v", limit, number, ok)
		}
	}
}
