// Package auth authenticates requests for streams.
//
// An Authenticator returns the Identity of a request, or an error. The error is a permanent rejection if it wraps
// ErrUnauthorized, ErrForbidden, ErrBadUser or ErrMalformed (see IsPermanent). Any other error is temporary: the
// client may retry.
//
// Authenticators are safe for concurrent use. After they have returned, they do not keep references to the request,
// except in the Recheck of the Identity. The program that creates an authenticator with a Close method must call it
// after the last request. Close waits for these goroutines:
//
//	Forward   one per call to the app, queued or in flight
//	JWT       per JWK set: one that refreshes it, and one per fetch; per request with an unknown key: one per set
//	Header    none
//	Insecure  none
package auth
