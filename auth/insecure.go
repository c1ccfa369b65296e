package auth

import (
	"fmt"
	"net/http"
)

// Insecure is an Authenticator that trusts the query: ?user=42. Any client can choose its own user id. Use it only for
// tests and demonstrations on loopback.
func Insecure(r *http.Request) (Identity, error) {
	switch users := r.URL.Query()["user"]; len(users) {
	case 0:
		return Identity{}, fmt.Errorf("%w: add ?user=<id>", ErrUnauthorized)
	case 1:
		if users[0] == "" {
			return Identity{}, emptyUser("add the id of a user: ?user=<id>")
		}
		return Identity{User: users[0]}, nil
	default:
		return Identity{}, fmt.Errorf("%w: more than one user", ErrMalformed)
	}
}

// InsecureGroups is Insecure for a hub with groups, which it trusts as well: ?user=42&group=team-7. A request can have
// several groups.
func InsecureGroups(r *http.Request) (Identity, error) {
	id, err := Insecure(r)
	if err == nil {
		id.Groups = distinct(r.URL.Query()["group"])
	}
	return id, err
}
