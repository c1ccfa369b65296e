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

// mix combines h with the beginning of s and its length. The multiplications of a string do not depend on each other,
// so that the processor does them at the same time. Blocks overlap if the length is not a multiple.
func mix(h uint64, s string) uint64 {
	h ^= uint64(min(len(s), sumLength)) * k0
	if len(s) > sumBytes {
		s = s[:sumBytes]
	}
	n := len(s)
	switch {
	case n > 32:
		return block(s[:16], k0, h) ^ block(s[16:32], k1, h) ^ block(s[n-32:], k2, h) ^ block(s[n-16:], k3, h)
	case n > 16:
		return block(s[:16], k0, h) ^ block(s[n-16:], k1, h)
	case n >= 8:
		return fold(load8(s)^k0, load8(s[n-8:])^h)
	case n >= 4:
		return fold(load4(s)^k0, load4(s[n-4:])^h)
	case n > 0:
		return fold(uint64(s[0])<<16|uint64(s[n/2])<<8|uint64(s[n-1])^k0, h)
	}
	return fold(k0, h)
}

func block(s string, k, h uint64) uint64 { return fold(load8(s)^k, load8(s[8:])^h) }

func fold(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// load8 and load4 are little-endian on every machine. The compiler makes one instruction of each.
func load8(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func load4(s string) uint64 {
	_ = s[3]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
}
