package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// The permanent rejections. Any other error of an Authenticator is temporary: the client may retry.
var (
	ErrUnauthorized = errors.New("not authenticated")
	ErrForbidden    = errors.New("this user is not allowed to open a stream")
	ErrBadUser      = errors.New("invalid user id") // also of a group that cannot be used
	ErrMalformed    = errors.New("malformed request")
)

// An Identity is the result of an accepted authentication.
type Identity struct {
	User    string
	Topics  []string  // topics that the user is allowed to receive, "" for messages without a topic; nil: all
	Groups  []string  // groups of which the user is a member, without duplicates
	Expires time.Time // when the stream must end; zero: never

	// Cached means that the decision was made before the request arrived. A permanent rejection, of a
	// topic for example, must not be based on it: call Recheck first.
	Cached bool

	// Recheck authenticates the request once more; nil: the result would be the same.
	Recheck *Recheck
}

// A Recheck authenticates a request once more. It holds the headers that this takes.
type Recheck struct {
	// Ask returns what Authenticate would return, decided after it was called. It blocks until ctx ends at most, and
	// is safe for concurrent use.
	Ask func(ctx context.Context) (Identity, error)

	// Due means that the user was disconnected less than RecheckWindow ago, perhaps because of a logout
	// that the app had not finished when it was called. The stream must be authenticated once more.
	Due bool

	// Bytes is the approximate memory of the headers, in bytes.
	Bytes int
}

// RecheckWindow is how long after a disconnect the streams that a user opens are authenticated twice.
const RecheckWindow = 30 * time.Second

// IsPermanent reports whether err rejects a request permanently.
func IsPermanent(err error) bool {
	return errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrForbidden) || errors.Is(err, ErrBadUser) || errors.Is(err, ErrMalformed)
}

// An Authenticator returns the user of a request, or an error: a permanent rejection or a temporary failure. It must be
// safe for concurrent use, return when the request's context ends, and leave the request's body unread.
type Authenticator func(*http.Request) (Identity, error)

// CheckUser returns an error that wraps ErrBadUser for a user id that cannot be part of a channel name or that
// addresses all users: the empty id, "*", broadcast, and ids that contain the topic separator. The error has a Hint, and
// does not contain the id.
func CheckUser(id, broadcast string, separator byte) error {
	switch {
	case id == "":
		return emptyUser("send an id for this user")
	case id == "*":
		return WithHint(fmt.Errorf("%w: * stands for all users", ErrBadUser), "use another id for this user; * is always reserved")
	case id == broadcast:
		return WithHint(fmt.Errorf("%w: it stands for all users (--broadcast-user)", ErrBadUser), "set --broadcast-user to an id that no user has")
	case strings.IndexByte(id, separator) >= 0:
		err := fmt.Errorf("%w: it contains %q, which separates user and topic (--topic-separator)", ErrBadUser, separator)
		return WithHint(err, separatorHint(id, "user"))
	}
	return nil
}

// separatorHint returns the hint for the name of a user or a group that contains the separator.
func separatorHint(name, kind string) string {
	noun := map[string]string{"user": "user id", "group": "group name"}[kind]
	for _, other := range "/|;,~!#:" {
		if !strings.ContainsRune(name, other) {
			return fmt.Sprintf("set --topic-separator to a character that no %s contains, such as %c, and publish to <prefix><%s>%[2]c<topic>", noun, other, kind)
		}
	}
	return fmt.Sprintf("set --topic-separator to a character that no %s contains, and publish to <prefix><%s><separator><topic>", noun, kind)
}

// emptyUser returns an error that wraps ErrBadUser, with a hint.
func emptyUser(hint string) error {
	return WithHint(fmt.Errorf("%w: it is empty", ErrBadUser), hint)
}

// A hintedError is an error with advice to the operator.
type hintedError struct {
	error
	hint string
}

func (h hintedError) Unwrap() error { return h.error }

// WithHint adds advice to the operator, such as the flag that would allow a request, to a rejection. The hint is
// for the log. The text of the error, which the client receives, stays the same.
func WithHint(err error, hint string) error { return hintedError{err, hint} }

// Hint returns the advice that WithHint added, or "".
func Hint(err error) string {
	h, _ := errors.AsType[hintedError](err)
	return h.hint
}

// A describedError is an error with a text that replaces its own.
type describedError struct {
	error
	text string
}

func (d describedError) Error() string { return d.text }
func (d describedError) Unwrap() error { return d.error }

// requestError describes why a request to another server has failed. The texts of net/http for a timeout and for a closed
// connection do not say what happened.
func requestError(request string, err error, timeout time.Duration) error {
	var netErr net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return describedError{err, fmt.Sprintf("%s timed out after %s (--auth-timeout)", request, timeout)}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return describedError{err, request + " failed: connection closed without a complete response"}
	}
	return fmt.Errorf("%s failed: %w", request, err)
}

// clip shortens text from outside the hub for the log.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
