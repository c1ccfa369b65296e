package auth

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"unicode"
	"unicode/utf8"

	"usercast/internal/unixsocket"
)

// UserHeader is the default name of the header with the user id.
const UserHeader = "X-User-ID"

// Header returns an Authenticator for a proxy that authenticates users. The proxy sets the header with the given name, or
// UserHeader if name is "", and optionally TopicsHeader. Requests from other addresses than proxies are rejected.
//
// If groups is true, GroupsHeader is read, too. The proxy must then set it or remove it in every request: otherwise a
// browser can choose its groups.
func Header(name string, proxies Proxies, groups bool) Authenticator {
	name = cmp.Or(name, UserHeader)
	return func(r *http.Request) (Identity, error) {
		if !proxies.Sent(r) {
			hint := "add the proxy's address to --trusted-proxy"
			if r.RemoteAddr == unixsocket.Peer {
				hint = "set --trusted-proxy unix: to trust the processes that can connect to the socket"
			}
			return Identity{}, WithHint(fmt.Errorf("%w: the request did not come through a trusted proxy", ErrUnauthorized), hint)
		}
		id, found, err := identity(r.Header, name, groups, decodeHeader)
		switch {
		case err == nil && groups && len(r.Header.Values(GroupsHeader)) > 1: // one of them may have been sent by the browser
			return Identity{}, WithHint(fmt.Errorf("%w: more than one %s header", ErrUnauthorized, GroupsHeader),
				"let the proxy replace the header, and set it only once")
		case errors.Is(err, ErrBadUser):
			return Identity{}, err
		case err != nil:
			return Identity{}, fmt.Errorf("%w: %w", ErrUnauthorized, err)
		case !found:
			return Identity{}, WithHint(fmt.Errorf("%w: the proxy did not set %s", ErrUnauthorized, name),
				"set --user-header to the header that the proxy sets")
		case id.User == "":
			return Identity{}, emptyUser("let the proxy set " + name + " to the user's id, or set --user-header to the header with the id")
		}
		return id, nil
	}
}

// identity returns the user, topics and, if groups is true, groups that a proxy or an app has set in headers, as decode
// reads them. More than one user is an error, because one of them may have been sent by the browser.
func identity(h http.Header, user string, groups bool, decode func(string) (string, error)) (id Identity, found bool, err error) {
	users := h.Values(user)
	switch len(users) {
	case 0:
		return Identity{}, false, nil
	case 1:
	default:
		return Identity{}, false, fmt.Errorf("more than one %s header", user)
	}
	id.User, err = decode(users[0])
	if err != nil { // JSON cannot represent it: no control command could name this user
		return Identity{}, true, fmt.Errorf("%w: %s %w", ErrBadUser, user, err)
	}
	if id.Topics, err = topicsIn(h, decode); err != nil {
		return Identity{}, false, err
	}
	if groups {
		if id.Groups, err = groupsIn(h, decode); err != nil {
			return Identity{}, false, err
		}
	}
	return id, true, nil
}

// onlyUTF8 returns the value of a header of the app. In ISO-8859-1, as Node sends a user name, "MÃ¼ller" has the bytes of
// "Müller" in UTF-8. If both were accepted, one of these users would receive the messages of the other.
func onlyUTF8(value string) (string, error) {
	if !utf8.ValidString(value) {
		return "", WithHint(errors.New("is not valid UTF-8"),
			`send ids, topics and groups in UTF-8, or use ASCII ids; Node needs Buffer.from(id).toString("latin1") for this`)
	}
	return value, nil
}

// decodeHeader returns the value of a header of a proxy as UTF-8. A value that is valid UTF-8 does not change. Any other is read as
// ISO-8859-1, the character set of header values before RFC 9110 (section 5.5), unless it would have control characters.
func decodeHeader(value string) (string, error) {
	if utf8.ValidString(value) {
		return value, nil
	}
	runes := make([]rune, len(value))
	for n := range len(value) {
		if runes[n] = rune(value[n]); unicode.IsControl(runes[n]) {
			return "", errors.New("is neither valid UTF-8 nor ISO-8859-1")
		}
	}
	return string(runes), nil
}
