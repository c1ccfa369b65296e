// Package auth answers who is asking for a stream.
//
// An Authenticator looks at a request and returns an Identity, or an error that
// says "no" (ErrUnauthorized, ErrForbidden, ErrBadUser, ErrMalformed) or, with any other
// error, "not now": the browser may come back and ask again.
//
// Authenticators are safe for concurrent use and hold nothing of a request
// after they have answered.
package auth
