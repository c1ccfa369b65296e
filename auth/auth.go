package auth

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

// The ways to say no for good.
var (
	ErrUnauthorized = errors.New("not logged in")
	ErrForbidden    = errors.New("this user may not open a stream")
	ErrBadUser      = errors.New("nobody can log in under this user id")
	ErrMalformed    = errors.New("the request cannot be understood")
)

// An Identity is a logged-in user.
type Identity struct {
	User    string
	Topics  []string  // only these may be seen; nil: all; "" is "no topic"
	Expires time.Time // when the log-in ends; zero: it does not

	// Cached means that the decision was made before the request arrived. A permanent rejection, of a
	// topic for example, must not rest on it: see Recheck.
	Cached bool

	// Recheck authenticates the request once more; nil: the result would be the same.
	Recheck *Recheck
}

// A Recheck authenticates a request once more, and holds what it needs of the request.
type Recheck struct {
	// Ask returns what Authenticate would, decided after the call. It blocks until ctx ends at most, and
	// is safe for concurrent use.
	Ask func(ctx context.Context) (Identity, error)

	// Due means that the user was disconnected less than RecheckWindow ago, perhaps because of a logout
	// that the app had not finished when it was asked: a stream must be authenticated once more.
	Due bool

	// Bytes is the size of the headers that are held.
	Bytes int
}

// RecheckWindow is how long after a disconnect the streams that a user opens are authenticated twice.
const RecheckWindow = 30 * time.Second

// IsPermanent reports whether err rejects a request permanently.
func IsPermanent(err error) bool {
	return errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrForbidden) || errors.Is(err, ErrBadUser) || errors.Is(err, ErrMalformed)
}

// An Authenticator tells who is asking. The request's body is not to be read.
type Authenticator func(*http.Request) (Identity, error)

// CheckUser returns ErrBadUser for an id that no channel could carry, or that
// stands for everybody: the empty one, one with a ':', '*', and broadcast.
func CheckUser(id, broadcast string) error {
	if id == "" || id == "*" || id == broadcast || strings.Contains(id, ":") {
		return ErrBadUser
	}
	return nil
}

// A hinted is an error with advice to the operator.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// WithHint adds advice to the operator, such as the flag that would allow a request, to a rejection. It
// is for the log: the text of the error, which clients are sent, stays the same.
func WithHint(err error, hint string) error { return hinted{err, hint} }

// Hint returns the advice that WithHint added, or "".
func Hint(err error) string {
	h, _ := errors.AsType[hinted](err)
	return h.hint
}

// clip shortens text from outside the hub for the log.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
