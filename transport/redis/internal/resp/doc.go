// Package resp reads and writes RESP2, the protocol of Redis, with bounded memory.
//
// A CheckedConn checks replies before go-redis reads them. go-redis panics at some unexpected
// replies, waits forever for others, and allocates any length that a reply announces. The
// CheckedConn also counts complete replies, so that a subscriber can process all that have arrived
// without waiting for another one.
//
// A Reader and a Writer implement the protocol without go-redis: for replies that are too large
// to be in memory as a whole, and for pipelining.
//
// No type is safe for concurrent use.
package resp

import "fmt"

// Bounds of a reply. Without them, a wrong length could exhaust the memory.
const (
	maxBulk     = 512 << 20 // bytes: Redis's own default, proto-max-bulk-len
	maxElements = 1 << 20   // of one array: what Redis accepts as arguments of one command
	maxTotal    = 4 << 20   // elements in all arrays of one reply
	maxDepth    = 8         // arrays in arrays; XREAD needs 5
	maxLine     = 64 << 10  // bytes of a status or an error
)

// An Error is the error of an invalid reply. Its text contains types and lengths of the reply, but no
// content.
type Error struct{ what string }

func (e *Error) Error() string { return e.what }

// Errorf returns an Error.
func Errorf(format string, args ...any) *Error { return &Error{fmt.Sprintf(format, args...)} }

// A ReplyError is an error reply to a command.
type ReplyError struct{ Command, Text string }

func (e *ReplyError) Error() string { return e.Text }

// RedisError marks it as an error reply for the functions of go-redis.
func (e *ReplyError) RedisError() {}
