package resp

import (
	"bytes"
	"net"
	"syscall"
)

// MinKeep is the minimum number of bytes of a string that are kept.
const MinKeep = 2 << 20

// connBuffer is the size of one read in bytes, the same as in go-redis.
const connBuffer = 32 << 10

// A CheckedConn checks RESP2 replies between the socket and go-redis, which panics at some unexpected
// replies, waits forever for others, and allocates any announced length. After the first error,
// Read returns an *Error.
//
// Replies pass unchanged, except that a string longer than keep is truncated, and its length is
// adjusted. So a string that is too large is never held in memory, but its length still shows that
// it is too large.
//
// One goroutine reads at a time. It allocates its buffer once, and nothing per reply.
type CheckedConn struct {
	net.Conn
	keep     int  // bytes that are kept of a string
	pushes   bool // see ExpectPushes
	complete int  // pushes that have arrived completely and have not been received yet

	buf     []byte
	r, v, w int // buf[r:v] is checked and not passed on yet, buf[v:w] is unchecked
	err     error

	// The position of v in a reply.
	body     int64         // remaining bytes of a string to pass on
	drop     int64         // bytes of it to drop after them
	end      bool          // the CRLF of a string follows both
	line     int           // bytes of a status or an error so far; 0: not in one
	rest     string        // types of the remaining elements of a push
	depth    int           // number of open arrays
	left     [maxDepth]int // remaining elements of each of them
	elements int           // announced by the arrays of this reply
}

// Check wraps conn. Of each string, keep bytes pass, or MinKeep if that is more. The checked connection
// is a syscall.Conn if conn is one: go-redis needs this to check whether an idle connection has been
// closed.
func Check(conn net.Conn, keep int) (checked net.Conn, replies *CheckedConn) {
	replies = &CheckedConn{Conn: conn, keep: max(keep, MinKeep) + 1}
	if sc, ok := conn.(syscall.Conn); ok {
		return struct {
			*CheckedConn
			syscall.Conn
		}{replies, sc}, replies
	}
	return replies, replies
}

func (c *CheckedConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for c.r == c.v {
		if c.err != nil {
			return 0, c.err
		}
		if c.r == c.w && c.body >= connBuffer { // in the middle of a long string
			n, err := c.Conn.Read(b[:min(int64(len(b)), c.body)])
			c.body -= int64(n)
			return n, err
		}
		if c.buf == nil {
			c.buf = make([]byte, connBuffer)
		}
		c.w = copy(c.buf, c.buf[c.v:c.w])
		c.r, c.v = 0, 0
		n, err := c.Conn.Read(c.buf[c.w:])
		c.w += n
		if n == 0 && err != nil {
			return 0, err
		}
		if err := c.check(); err != nil {
			c.err = err
		}
	}
	n := copy(b, c.buf[c.r:c.v])
	c.r += n
	return n, nil
}

// ExpectPushes is called when all replies to commands have been received. From then on, only pushes, error
// replies, and replies to PING are valid. Redis replies to a subscriber's PING with a push; some other servers
// reply with a status or a string, as without a subscription (microsoft/garnet#179).
func (c *CheckedConn) ExpectPushes() { c.pushes = true }

// Received records that a push was received. Pushes that arrived before ExpectPushes was called are not
// counted, so the count does not go below 0.
func (c *CheckedConn) Received() { c.complete = max(c.complete-1, 0) }

// Ready reports whether the next push can be received without waiting for more from the
// socket.
func (c *CheckedConn) Ready() bool { return c.complete > 0 }

// Idle reports whether everything that was read was valid and has been passed on. It is false for nil.
func (c *CheckedConn) Idle() bool { return c != nil && c.r == c.w && c.err == nil }

// check moves v to the end of what is complete and valid. The bytes after it are an incomplete length or
// an incomplete head of a push: a few bytes.
func (c *CheckedConn) check() error {
	for c.v < c.w {
		there := c.buf[c.v:c.w]
		switch {
		case c.body > 0:
			n := min(int64(len(there)), c.body)
			c.body -= n
			c.v += int(n)
		case c.drop > 0:
			n := min(int64(len(there)), c.drop)
			c.drop -= n
			c.w = c.v + copy(there, there[n:])
		case c.end:
			if len(there) < 2 {
				return nil
			}
			if there[0] != '\r' || there[1] != '\n' {
				return Errorf("a string does not have the announced length")
			}
			c.end = false
			c.v += 2
			c.element()
		case c.line > 0:
			n, err := c.text(there)
			if n == 0 || err != nil {
				return err
			}
			c.v += n
		default:
			n, err := c.head(there)
			if n == 0 || err != nil {
				return err
			}
			c.v += n
		}
	}
	return nil
}

// text checks a part of a status or an error and returns the number of valid bytes; 0 if more are
// needed. A trailing CR is left until its LF has arrived.
func (c *CheckedConn) text(there []byte) (n int, err error) {
	n = bytes.IndexByte(there, '\n') + 1
	ended := n > 0
	if !ended {
		n = len(bytes.TrimSuffix(there, []byte{'\r'}))
	}
	if c.line += n; c.line > maxLine {
		return 0, Errorf("line longer than %d bytes", maxLine)
	}
	if !ended {
		return n, nil
	}
	if n == 1 || there[n-2] != '\r' {
		return 0, Errorf("line without CR")
	}
	c.line = 0
	c.element()
	return n, nil
}

// push is a kind of reply that a subscriber receives: its first bytes, and the types of the elements
// after them.
type push struct{ head, rest string }

// pushes lists all kinds, the most frequent one first. Unsubscribe confirmations are not included, because
// a hub never unsubscribes.
var pushes = []push{
	{"*4\r\n$8\r\npmessage\r\n", "$$$"},
	{"*3\r\n$7\r\nmessage\r\n", "$$"},
	{"*2\r\n$4\r\npong\r\n", "$"},
	{"*3\r\n$9\r\nsubscribe\r\n", "$:"},
	{"*3\r\n$10\r\npsubscribe\r\n", "$:"},
}

// head checks the first line of a reply or an element and returns its length; 0 if it is incomplete.
func (c *CheckedConn) head(there []byte) (int, error) {
	kind := there[0]
	if c.rest != "" && kind != c.rest[0] {
		return 0, Errorf("type %q in a message, expected %q", kind, c.rest[0])
	}
	if c.pushes && c.rest == "" {
		switch kind {
		case '*':
			if n := wholeMessage(there, c.keep); n > 0 {
				c.complete++
				return n, nil
			}
			return c.push(there)
		case '+', '-': // an error reply to a command, or the reply to PING of a server that is not Redis
		case '$': // the same reply to a PING with a payload
		default:
			return 0, Errorf("type %q, expected a message", kind)
		}
	}
	switch kind {
	case '+', '-':
		c.line = 1
		return 1, nil
	case ':', '$', '*':
	default:
		return 0, Errorf("unknown type %q", kind)
	}
	n, size, err := number(there)
	if size == 0 || err != nil {
		return 0, err
	}
	switch {
	case kind == ':':
		c.element()
	case n == -1 && c.rest == "" && !c.pushes: // nil
		c.element()
	case n < 0:
		return 0, Errorf("invalid length %d", n)
	case kind == '$':
		return size, c.bulk(there[:size], n)
	default:
		return size, c.array(n)
	}
	return size, nil
}

func (c *CheckedConn) push(there []byte) (int, error) {
	partly := false
	for _, p := range pushes {
		if len(there) >= len(p.head) {
			if string(there[:len(p.head)]) == p.head {
				c.rest = p.rest
				return len(p.head), nil
			}
		} else if p.head[:len(there)] == string(there) {
			partly = true
		}
	}
	if partly {
		return 0, nil
	}
	return 0, Errorf("unexpected array")
}

// wholeMessage returns the length of the pattern message at the beginning of there, if it is complete,
// valid and not to be truncated; otherwise 0. This saves half of the cost of the check.
func wholeMessage(there []byte, keep int) int {
	head := pushes[0].head
	if len(there) < len(head) || string(there[:len(head)]) != head {
		return 0
	}
	i := len(head)
	for range pushes[0].rest {
		if i == len(there) || there[i] != '$' {
			return 0
		}
		i++
		n, first := 0, i
		for ; i < len(there) && '0' <= there[i] && there[i] <= '9' && i-first < 9; i++ {
			n = 10*n + int(there[i]-'0')
		}
		if i == first || i+2 > len(there) || there[i] != '\r' || there[i+1] != '\n' {
			return 0
		}
		i += 2 + n + 2
		if n > keep || i > len(there) || there[i-2] != '\r' || there[i-1] != '\n' {
			return 0
		}
	}
	return i
}

// bulk begins a string. head is its first line, in which the length is replaced if the string is
// truncated.
func (c *CheckedConn) bulk(head []byte, n int64) error {
	if n > maxBulk {
		return Errorf("string of %d bytes exceeds the limit", n)
	}
	c.body, c.end = n, true
	if keep := int64(c.keep); n > keep {
		c.body, c.drop = keep, n-keep
		digits := head[1 : len(head)-2]
		for i := len(digits) - 1; i >= 0; i-- {
			digits[i] = byte('0' + keep%10)
			keep /= 10
		}
	}
	return nil
}

func (c *CheckedConn) array(n int64) error {
	if c.depth == 0 {
		c.elements = 0
	}
	if n > maxElements || c.elements+int(n) > maxTotal {
		return Errorf("array of %d elements exceeds the limit", n)
	}
	c.elements += int(n)
	switch {
	case n == 0:
		c.element()
	case c.depth == maxDepth:
		return Errorf("arrays are nested too deeply")
	default:
		c.left[c.depth] = int(n)
		c.depth++
	}
	return nil
}

// element records that an element is complete, and with it the arrays that it ends.
func (c *CheckedConn) element() {
	if c.rest != "" {
		if c.rest = c.rest[1:]; c.rest == "" {
			c.complete++
		}
		return
	}
	for c.depth > 0 {
		if c.left[c.depth-1]--; c.left[c.depth-1] > 0 {
			return
		}
		c.depth--
	}
	if c.pushes { // not a message
		c.complete++
	}
}

// number parses the number in a line and returns the size of the line; 0 if it is incomplete.
func number(there []byte) (n int64, size int, err error) {
	i := 1
	negative := i < len(there) && there[i] == '-'
	if negative {
		i++
	}
	const digits = 19 // of the largest int64
	first := i
	for ; i < len(there) && '0' <= there[i] && there[i] <= '9'; i++ {
		if i-first == digits {
			return 0, 0, Errorf("number too long")
		}
		n = 10*n + int64(there[i]-'0')
	}
	switch {
	case n < 0: // over the largest int64
		return 0, 0, Errorf("number too large")
	case i == len(there):
		return 0, 0, nil
	case i == first || there[i] != '\r':
		return 0, 0, Errorf("malformed number")
	case i+1 == len(there):
		return 0, 0, nil
	case there[i+1] != '\n':
		return 0, 0, Errorf("line without LF")
	}
	if negative {
		n = -n
	}
	return n, i + 2, nil
}
