// Package resp reads and writes RESP2, the protocol of Redis, with bounded memory.
//
// A Conn checks what passes from a socket to go-redis. go-redis panics at some replies that it
// does not expect, waits without end for others, and allocates what a length announces. The
// Conn also counts the replies that have come, so that a subscriber can receive all that is
// there without waiting for more.
//
// A Reader and a Writer speak the protocol without go-redis, for replies that are too large to
// be held in memory as a whole and for commands that are sent before earlier ones are replied to.
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
