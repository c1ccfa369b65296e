package fleet

import "math/bits"

// A checksum of messages is the sum of the checksums of each, modulo 2^32. So the checksum of the messages between two
// markers is a difference. All hubs of a fleet must agree on it, whatever their version and --max-payload:
//
//   - It depends on no more than the first sumBytes of channel and payload, and their lengths up to sumLength. Hubs
//     truncate longer strings, but none to less than this (package resp, MinKeep).
//   - It must never change. A hub with another checksum would find that it has missed messages at each marker.
const (
	sumBytes  = 64
	sumLength = 2 << 20
)

// sum returns the checksum of one message. It is not cryptographic: it detects a lost message, not a forged one.
func sum(channel, payload string) uint32 {
	h := mix(mix(0, channel), payload)
	return uint32(h ^ h>>32)
}

// The numbers of wyhash, whose method this is: multiply 64 by 64 bits, then combine both halves.
const (
	k0 = 0xa0761d6478bd642f
	k1 = 0xe7037ed1a0b428db
	k2 = 0x8ebc6af09c88c6e3
	k3 = 0x589965cc75374cc3
)

// mix combines h with the beginning of s and its length. The multiplications for one string do not depend on each
// other, so that the processor does them at the same time. Words overlap if they do not divide the length.
func mix(h uint64, s string) uint64 {
	n := len(s)
	h ^= uint64(min(n, sumLength)) * k0
	n = min(n, sumBytes)
	switch {
	case n > 32:
		return fold(word(s, 0)^k0, word(s, 8)^h) ^ fold(word(s, 16)^k1, word(s, 24)^h) ^
			fold(word(s, n-32)^k2, word(s, n-24)^h) ^ fold(word(s, n-16)^k3, word(s, n-8)^h)
	case n > 16:
		return fold(word(s, 0)^k0, word(s, 8)^h) ^ fold(word(s, n-16)^k1, word(s, n-8)^h)
	case n >= 8:
		return fold(word(s, 0)^k0, word(s, n-8)^h)
	case n >= 4:
		return fold(halfWord(s, 0)^k0, halfWord(s, n-4)^h)
	case n > 0:
		return fold(uint64(s[0])<<16|uint64(s[n/2])<<8|uint64(s[n-1])^k0, h)
	}
	return fold(k0, h)
}

func fold(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// word returns the 8 bytes of s at i, halfWord 4 bytes: little-endian on every machine. The compiler makes one
// instruction of each.
func word(s string, i int) uint64 {
	_ = s[i+7]
	return uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
		uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
}

func halfWord(s string, i int) uint64 {
	_ = s[i+3]
	return uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24
}
