package auth

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"unicode/utf8"

	"usercast/internal/unixsocket"
)

// UserHeader is the default name of the header with the user id.
const UserHeader = "X-User-ID"

// Header returns an Authenticator for a proxy that authenticates users. The proxy sets the header with the given name, or
// UserHeader if name is "", and optionally TopicsHeader. Requests from other addresses than proxies are rejected.
func Header(name string, proxies Proxies) Authenticator {
	name = cmp.Or(name, UserHeader)
	return func(r *http.Request) (Identity, error) {
		if !proxies.Sent(r) {
			hint := "add the proxy's address to --trusted-proxy"
			if r.RemoteAddr == unixsocket.Peer {
				hint = "set --trusted-proxy unix: to trust the processes that can connect to the socket"
			}
			return Identity{}, WithHint(fmt.Errorf("%w: the request did not come through a trusted proxy", ErrUnauthorized), hint)
		}
		id, found, err := identity(r.Header, name)
		switch {
		case errors.Is(err, ErrBadUser):
			return Identity{}, err
		case err != nil:
			return Identity{}, fmt.Errorf("%w: %w", ErrUnauthorized, err)
		case !found:
			return Identity{}, WithHint(fmt.Errorf("%w: the proxy did not set %s", ErrUnauthorized, name),
				"set --user-header to the header that the proxy sets")
		}
		return id, nil
	}
}

// identity returns the user and topics that a proxy or an app has set in headers. More than one user is an error, because
// one of them may have been sent by the browser.
func identity(h http.Header, user string) (id Identity, found bool, err error) {
	users := h.Values(user)
	switch len(users) {
	case 0:
		return Identity{}, false, nil
	case 1:
	default:
		return Identity{}, false, fmt.Errorf("more than one %s header", user)
	}
	if !utf8.ValidString(users[0]) { // JSON cannot represent it: no control command could name this user
		return Identity{}, true, fmt.Errorf("%w: %s is not valid UTF-8", ErrBadUser, user)
	}
	topics, err := parseTopics(h.Values(TopicsHeader))
	if err != nil {
		return Identity{}, false, err
	}
	return Identity{User: users[0], Topics: topics}, true, nil
}
