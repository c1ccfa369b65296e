package hub

import (
	"iter"
	"slices"
	"strings"
)

// An owner is the state of a recipient, a user or a group. It is guarded by Hub.mu.
type owner struct {
	Recipient
	clients []*Client // of the user, or of the members of the group; owned by owners
	past    past      // owned by the history
}

// owners contains the users and groups with a client, and those with entries in the history.
type owners struct {
	users, groups               table[*owner]
	presentUsers, presentGroups int // those with a client
}

func (s *owners) table(group bool) *table[*owner] {
	if group {
		return &s.groups
	}
	return &s.users
}

// get returns nil for an unknown recipient.
func (s *owners) get(to Recipient) *owner { return s.table(to.Group).get(to.Name) }

// lookup is get if the caller has the hash of the name.
func (s *owners) lookup(hash uint64, to Recipient) *owner {
	return s.table(to.Group).lookup(hash, to.Name)
}

func (s *owners) add(to Recipient) *owner {
	o := &owner{Recipient: to}
	s.table(to.Group).set(to.Name, o)
	return o
}

func (s *owners) remove(o *owner) { s.table(o.Group).remove(o.Name) }

func (s *owners) present(group bool) *int {
	if group {
		return &s.presentGroups
	}
	return &s.presentUsers
}

// join adds a client to an owner. It returns the owner, whether it is new, and whether the client is its only one.
func (s *owners) join(c *Client, to Recipient) (o *owner, isNew, first bool) {
	o = s.get(to)
	if isNew = o == nil; isNew {
		to.Name = strings.Clone(to.Name) // it may be part of a large request, which must not stay in memory
		o = s.add(to)
	}
	o.clients = append(o.clients, c)
	if first = len(o.clients) == 1; first {
		*s.present(to.Group)++
	}
	return o, isNew, first
}

// leave removes a client from an owner, and reports whether it was the owner's last one. i is its index in the list; the
// client with the last index takes it.
func (s *owners) leave(o *owner, i int) (last bool) {
	n := len(o.clients) - 1
	o.clients[i] = o.clients[n]
	o.clients[n] = nil
	if o.clients = o.clients[:n]; n > 0 {
		return false
	}
	o.clients = nil
	*s.present(o.Group)--
	return true
}

// groupSet contains the groups of a client: those of which its user was a member when it registered.
type groupSet []membership

// A membership has the index of the client in the list of the group, so that a client leaves a group of many clients
// without a search.
type membership struct {
	group *owner
	index int
}

// owners returns the client's user and its groups. c.hub.mu is held.
func (c *Client) owners() iter.Seq[*owner] {
	return func(yield func(*owner) bool) {
		if !yield(c.user) || c.groups == nil {
			return
		}
		for _, m := range *c.groups {
			if !yield(m.group) {
				return
			}
		}
	}
}

// isMember reports whether a group is among those of the client. c.hub.mu is held.
func (c *Client) isMember(group *owner) bool { return c.membership(group) != nil }

func (c *Client) membership(group *owner) *membership {
	if c.groups != nil {
		for i := range *c.groups {
			if m := &(*c.groups)[i]; m.group == group {
				return m
			}
		}
	}
	return nil
}

// join adds a client to its user and its groups.
func (h *Hub) join(c *Client, user string, groups []string) {
	o, isNew, first := h.owners.join(c, User(user))
	c.user = o
	if first {
		h.history.joined(o, isNew)
	}
	if len(groups) == 0 {
		return
	}
	set := make(groupSet, 0, len(groups))
	c.groups = &set
	for _, name := range groups {
		if g := h.owners.get(Group(name)); g != nil && c.isMember(g) {
			continue // the name is in the list twice
		}
		g, isNew, first := h.owners.join(c, Group(name))
		set = append(set, membership{g, len(g.clients) - 1})
		if first {
			h.history.joined(g, isNew)
		}
	}
}

// leave removes a client from its user and its groups.
func (h *Hub) leave(c *Client) {
	if h.owners.leave(c.user, slices.Index(c.user.clients, c)) {
		h.history.left(c.user)
	}
	if c.groups == nil {
		return
	}
	for _, m := range *c.groups {
		if h.owners.leave(m.group, m.index) {
			h.history.left(m.group)
		} else if m.index < len(m.group.clients) {
			m.group.clients[m.index].membership(m.group).index = m.index
		}
	}
}
