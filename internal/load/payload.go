package load

import (
	"bytes"
	"strconv"
)

// A stamp is the content of a message.
type stamp struct {
	user  int    // number of the user, or allUsers
	seq   uint32 // place in the user's sequence, from 1
	index int    // number of the message in the run, from 0
	due   int64  // when it was due: nanoseconds of the run's clock
}

const allUsers = -1

// userName returns the name of a user in channels, URLs and payloads.
func userName(user int) string {
	if user == allUsers {
		return "*"
	}
	return strconv.Itoa(user)
}

// payloadStart returns the first bytes of all payloads of a run.
func payloadStart(run string) []byte { return []byte(`{"run":"` + run + `","user":"`) }

const (
	beforeSeq   = `","seq":`
	beforeIndex = `,"msg":`
	beforeDue   = `,"due_ns":`
	beforePad   = `,"pad":"`
	payloadEnd  = `"}`
)

// MinSize is a size that is sufficient for all payloads.
const MinSize = 128

// appendPayload appends a JSON object of size bytes.
func appendPayload(dst, start []byte, s stamp, size int) []byte {
	begin := len(dst)
	dst = append(dst, start...)
	if s.user == allUsers {
		dst = append(dst, '*')
	} else {
		dst = strconv.AppendInt(dst, int64(s.user), 10)
	}
	dst = append(dst, beforeSeq...)
	dst = strconv.AppendUint(dst, uint64(s.seq), 10)
	dst = append(dst, beforeIndex...)
	dst = strconv.AppendInt(dst, int64(s.index), 10)
	dst = append(dst, beforeDue...)
	dst = strconv.AppendInt(dst, s.due, 10)
	dst = append(dst, beforePad...)
	for len(dst)-begin+len(payloadEnd) < size {
		dst = append(dst, padding[:min(len(padding), size-(len(dst)-begin)-len(payloadEnd))]...)
	}
	return append(dst, payloadEnd...)
}

var padding = bytes.Repeat([]byte{'x'}, 4096)

// readPayload reads the stamp of a payload. ok is false if the payload is not from the run that start belongs to.
func readPayload(data, start []byte) (s stamp, ok bool) {
	rest, ok := bytes.CutPrefix(data, start)
	if !ok {
		return s, false
	}
	if len(rest) > 0 && rest[0] == '*' {
		s.user, rest = allUsers, rest[1:]
	} else {
		var user uint64
		user, rest, ok = number(rest)
		if s.user = int(user); !ok {
			return s, false
		}
	}
	var n [3]uint64
	for i, before := range [...]string{beforeSeq, beforeIndex, beforeDue} {
		if len(rest) < len(before) || string(rest[:len(before)]) != before {
			return s, false
		}
		if n[i], rest, ok = number(rest[len(before):]); !ok {
			return s, false
		}
	}
	s.seq, s.index, s.due = uint32(n[0]), int(n[1]), int64(n[2])
	whole := bytes.HasPrefix(rest, []byte(beforePad)) && bytes.HasSuffix(rest, []byte(payloadEnd))
	return s, whole && s.seq > 0 && n[0] < 1<<32 && n[1] < 1<<32 && s.due >= 0
}

// number reads up to 18 decimal digits.
func number(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && i < 18 && b[i] >= '0' && b[i] <= '9'; i++ {
		n = n*10 + uint64(b[i]-'0')
	}
	return n, b[i:], i > 0
}
