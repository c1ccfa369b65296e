package auth

import (
	"errors"
	"fmt"
	"net/http"
	"unicode/utf8"
)

// UserHeader is the header that says who the user is, unless another is chosen.
const UserHeader = "X-User-ID"

// Header believes a proxy that has logged the user in and says so in a header named
// user, and in TopicsHeader. From anyone but the proxies both are ignored.
func Header(user string, proxies Proxies) Authenticator {
	return func(r *http.Request) (Identity, error) {
		if !proxies.Sent(r) {
			return Identity{}, WithHint(fmt.Errorf("%w: this did not come through the proxy that logs users in", ErrUnauthorized),
				"--trusted-proxy must contain the proxy's address")
		}
		id, found, err := identity(r.Header, user)
		switch {
		case errors.Is(err, ErrBadUser):
			return Identity{}, err
		case err != nil:
			return Identity{}, fmt.Errorf("%w: %w", ErrUnauthorized, err)
		case !found:
			return Identity{}, WithHint(fmt.Errorf("%w: the proxy names no user in %s", ErrUnauthorized, user),
				"--user-header is the header that the proxy sets")
		}
		return id, nil
	}
}

// identity reads the headers in which a proxy or an app says who the user is. More than
// one user is an error: one of them may be what the browser has sent.
func identity(h http.Header, user string) (id Identity, found bool, err error) {
	users := h.Values(user)
	switch len(users) {
	case 0:
		return Identity{}, false, nil
	case 1:
	default:
		return Identity{}, false, fmt.Errorf("there is more than one %s", user)
	}
	if !utf8.ValidString(users[0]) { // JSON cannot say it: no order could name this user
		return Identity{}, true, fmt.Errorf("%w: %s is not UTF-8", ErrBadUser, user)
	}
	topics, err := parseTopics(h.Values(TopicsHeader))
	if err != nil {
		return Identity{}, false, err
	}
	return Identity{User: users[0], Topics: topics}, true, nil
}
