// Package resp reads and writes RESP2, the protocol of Redis, with bounded memory.
//
// A CheckedConn checks replies before go-redis reads them. go-redis panics at some unexpected
// replies, waits forever for others, and allocates any length that a reply announces. The
// CheckedConn also counts complete replies, so that a subscriber can receive all that have arrived
// without waiting for the next one.
//
// A Reader and a Writer implement the protocol without go-redis: for replies that are too large
// to be in memory as a whole, and for pipelining.
//
// No type is safe for concurrent use.
package resp

import "fmt"

// Bounds of a reply. A length that is wrong could otherwise exhaust the memory.
const (
	maxBulk     = 512 << 20 // bytes: Redis's own default, proto-max-bulk-len
	maxElements = 1 << 20   // of one array: what Redis accepts as arguments of one command
	maxTotal    = 4 << 20   // elements that the arrays of one reply announce together
	maxDepth    = 8         // arrays in arrays; XREAD needs 5
	maxLine     = 64 << 10  // bytes of a status or an error
)

// An Error is a reply that cannot be right. Its text holds nothing of what was received but
// types and lengths.
type Error struct{ what string }

func (e *Error) Error() string { return e.what }

// Errorf makes an Error.
func Errorf(format string, args ...any) *Error { return &Error{fmt.Sprintf(format, args...)} }

// A ReplyError is an error reply to a command.
type ReplyError struct{ Command, Text string }

func (e *ReplyError) Error() string { return e.Text }

// RedisError makes it one for go-redis, whose functions classify it.
func (e *ReplyError) RedisError() {}
