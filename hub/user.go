package hub

import (
	"slices"
	"strings"
)

// A user is the state of one user id. It is guarded by Hub.mu.
type user struct {
	name    string
	clients []*Client // owned by users
	past    past      // owned by the history
}

// users contains the users with a client, and those with entries in the history.
type users struct {
	table   table[*user]
	present int // users with a client
}

// get returns nil for an unknown user.
func (s *users) get(name string) *user { return s.table.get(name) }

// lookup is get if the caller has the hash of the name.
func (s *users) lookup(hash uint64, name string) *user { return s.table.lookup(hash, name) }

func (s *users) add(name string) *user {
	u := &user{name: name}
	s.table.set(name, u)
	return u
}

func (s *users) remove(u *user) { s.table.remove(u.name) }

// join adds a client to its user, and reports whether it is the user's only one.
func (s *users) join(c *Client, name string) (first bool) {
	u := s.get(name)
	if u == nil {
		u = s.add(strings.Clone(name)) // name may be part of a large request, which must not stay in memory
	}
	c.user = u
	u.clients = append(u.clients, c)
	if len(u.clients) > 1 {
		return false
	}
	s.present++
	return true
}

// leave removes a client from its user, and reports whether it was the user's last one.
func (s *users) leave(c *Client) (last bool) {
	u := c.user
	n := len(u.clients) - 1
	i := slices.Index(u.clients, c)
	u.clients[i] = u.clients[n]
	u.clients[n] = nil
	if u.clients = u.clients[:n]; n > 0 {
		return false
	}
	u.clients = nil
	s.present--
	return true
}
