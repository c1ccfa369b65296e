package fleet

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// The checksum of a message never changes, because all versions of a fleet must agree on it.
func TestSumIsTheSameInAllVersions(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 30)
	for _, c := range []struct {
		channel, payload string
		want             uint32
	}{
		{"", "", 0},
		{"user-1", "", 0xc9c93227},
		{"user-1", "a", 0x89f35883},
		{"user-1", "ab", 0xfa3dd94b},
		{"user-1", "abc", 0xae2edf0a},
		{"user-1", "abcd", 0x7c442d31},
		{"user-1", "abcdefg", 0x38f27448},
		{"user-1", "abcdefgh", 0xfad37dcb},
		{"user-1:topic", "\x00\xff", 0x44f66c3a},
		{"user-1", long[:15], 0xb2afb099},
		{"user-1", long[:16], 0xb28d3d47},
		{"user-1", long[:17], 0xb2543ac6},
		{"user-1", long[:32], 0x7737d96},
		{"user-1", long[:33], 0x1f6ed4cc},
		{"user-1", long[:63], 0x746be275},
		{"user-1", long[:64], 0x4792eecd},
		{"user-1", long[:65], 0x175c7401},
		{"user-1", long, 0x3ddc09c9},
		{long, `{"n":1}`, 0xeaa28a8c},
	} {
		if got := sum(c.channel, c.payload); got != c.want {
			t.Errorf("%q, %q: %#x, want %#x", c.channel, c.payload, got, c.want)
		}
	}
}

// referenceSum is sum in the simplest way: bytes and large numbers.
func referenceSum(channel, payload string) uint32 {
	h := uint64(0)
	for _, s := range []string{channel, payload} {
		h ^= uint64(min(len(s), 2097152)) * 0xa0761d6478bd642f
		b := []byte(s)[:min(len(s), 64)]
		n := len(b)
		word := func(from, to int) uint64 {
			var w [8]byte
			copy(w[:], b[from:to])
			return binary.LittleEndian.Uint64(w[:])
		}
		product := func(x, y uint64) uint64 {
			p := new(big.Int).Mul(new(big.Int).SetUint64(x), new(big.Int).SetUint64(y))
			mask := new(big.Int).SetUint64(1<<64 - 1)
			return new(big.Int).And(p, mask).Uint64() ^ new(big.Int).Rsh(p, 64).Uint64()
		}
		switch {
		case n > 16:
			at, keys := []int{0, n - 16}, []uint64{0xa0761d6478bd642f, 0xe7037ed1a0b428db}
			if n > 32 {
				at, keys = []int{0, 16, n - 32, n - 16}, append(keys, 0x8ebc6af09c88c6e3, 0x589965cc75374cc3)
			}
			all := uint64(0)
			for i, from := range at {
				all ^= product(word(from, from+8)^keys[i], word(from+8, from+16)^h)
			}
			h = all
		case n >= 8:
			h = product(word(0, 8)^0xa0761d6478bd642f, word(n-8, n)^h)
		case n >= 4:
			h = product(word(0, 4)^0xa0761d6478bd642f, word(n-4, n)^h)
		case n > 0:
			w := uint64(b[0])*65536 + uint64(b[n/2])*256 + uint64(b[n-1])
			h = product(w^0xa0761d6478bd642f, h)
		default:
			h = product(0xa0761d6478bd642f, h)
		}
	}
	return uint32(h>>32) ^ uint32(h)
}

func FuzzSum(f *testing.F) {
	for _, n := range []int{0, 1, 3, 4, 7, 8, 16, 17, 32, 33, 64, 65, 1000} {
		f.Add(strings.Repeat("c", n%40), strings.Repeat("p", n))
	}
	f.Fuzz(func(t *testing.T, channel, payload string) {
		if got, want := sum(channel, payload), referenceSum(channel, payload); got != want {
			t.Errorf("%q, %q: %#x, want %#x", channel, payload, got, want)
		}
	})
}

// Hubs with different --max-payload truncate a payload differently, but none to less than 2 MiB and a byte.
func TestR2SumDoesNotDependOnTheMaximumPayload(t *testing.T) {
	t.Parallel()
	payload := strings.Repeat("x", sumLength+100)
	want := sum("user-1", payload)
	for _, n := range []int{sumLength, sumLength + 1, sumLength + 99} {
		if got := sum("user-1", payload[:n]); got != want {
			t.Errorf("%d bytes: %#x, want %#x", n, got, want)
		}
	}
	if sum("user-1", payload[:sumLength-1]) == want {
		t.Error("a shorter payload has the same checksum")
	}
}

// Two messages that differ in one of the first bytes, in their length, or in the part that belongs to the channel have
// different checksums, except by chance.
func TestSumsDiffer(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	seen := map[uint32]int{}
	add := func(channel, payload string) { seen[sum(channel, payload)]++ }
	for n := range 100 {
		base := []byte(strings.Repeat("x", n))
		add("user-1", string(base))
		for i := range min(n, sumBytes) {
			base[i]++
			add("user-1", string(base))
			base[i]--
		}
	}
	for range 100_000 {
		b := make([]byte, 20)
		for i := range b {
			b[i] = byte('0' + random.IntN(10))
		}
		cut := 4 + random.IntN(12)
		add(string(b[:cut]), string(b[cut:]))
	}
	total := 0
	for _, n := range seen {
		total += n
	}
	if same := total - len(seen); same > 10 { // 100,000 random numbers of 32 bits: 1.2 pairs
		t.Errorf("%d of %d checksums are equal", same, total)
	}
}

// The time per message.
func BenchmarkCount(b *testing.B) {
	for _, n := range []int{7, 87, 200} {
		payload := strings.Repeat("x", n)
		b.Run(fmt.Sprint(n, "B"), func(b *testing.B) {
			m := new(Member)
			for b.Loop() {
				m.Count("user-10000000:activity", payload)
			}
		})
	}
}
