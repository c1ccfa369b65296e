package auth

import (
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

// clip shortens text from outside the hub for the log.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
