// Package auth answers who is asking for a stream.
//
// An Authenticator looks at a request and returns an Identity, or an error that
// says "no" (ErrUnauthorized, ErrForbidden, ErrBadUser, ErrMalformed) or, with any other
// error, "not now": the browser may come back and ask again.
//
// Authenticators are safe for concurrent use and hold nothing of a request
// after they have answered, except in the Recheck that they return. Who made one that has a Close method calls that when nobody
// asks any more; it waits for what the authenticator has started:
//
//	Forward   a goroutine and a request for each question to the app that is under way
//	JWT       with a JWK set, one that keeps it fresh, and one for a fetch under way
//	Header    nothing
//	Insecure  nothing
package auth
