package hub

import (
	"slices"
	"strings"
)

// An owner is the state of a recipient. It is guarded by Hub.mu. It does not contain whether it is a user or a group, because
// one more byte would cost 16 per user.
type owner struct {
	name    string
	clients []*Client // of the user, or of the members of the group
	past    past      // owned by the history
}

// owners contains the users and groups with a client, and those with entries in the history.
type owners struct{ users, groups ownerTable }

type ownerTable struct {
	table[*owner]
	present int // owners with a client
}

func (s *owners) table(group bool) *ownerTable {
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
	o := &owner{name: to.Name}
	s.table(to.Group).set(to.Name, o)
	return o
}

func (s *owners) remove(o *owner) { s.table(s.users.get(o.name) != o).remove(o.name) }

// groupSet contains the groups of a client, sorted by name: those of which its user was a member when it registered.
type groupSet []membership

// fewGroups is the number of groups up to which a linear search is faster than a binary search.
const fewGroups = 8

// A membership has the index of the client in the list of the group, so that a client leaves a group of many clients
// without a search.
type membership struct {
	group *owner // immutable
	index int    // guarded by Hub.mu
}

func (c *Client) memberships() groupSet {
	if c.groups == nil {
		return nil
	}
	return *c.groups
}

// membership returns nil if the client is not a member of the group.
func (c *Client) membership(group *owner) *membership {
	set := c.memberships()
	if len(set) > fewGroups {
		i, _ := slices.BinarySearchFunc(set, group.name, compareMembership)
		set = set[i:min(i+1, len(set))]
	}
	for i := range set {
		if set[i].group == group {
			return &set[i]
		}
	}
	return nil
}

func compareMembership(m membership, name string) int { return strings.Compare(m.group.name, name) }

// group returns the group with an index, or nil after the last one. With the user first, a loop over all owners is
//
//	for i, o := 0, c.user; o != nil; i, o = i+1, c.group(i)
func (c *Client) group(i int) *owner {
	if set := c.memberships(); i < len(set) {
		return set[i].group
	}
	return nil
}

// join adds a client to its user and its groups. h.mu is held.
func (h *Hub) join(c *Client, user string, groups []string) {
	if c.user, _ = h.joinOwner(c, User(user)); len(c.user.clients) == 1 {
		h.arrivals.add(c.user.name)
	}
	if len(groups) == 0 {
		return
	}
	set := make(groupSet, 0, len(groups))
	for _, name := range groups {
		if g, joined := h.joinOwner(c, Group(name)); joined { // otherwise the name is in the list twice
			set = append(set, membership{g, len(g.clients) - 1})
		}
	}
	slices.SortFunc(set, func(a, b membership) int { return compareMembership(a, b.group.name) })
	c.groups = &set
}

// joinOwner adds a client to one owner, unless it is the one that was added last.
func (h *Hub) joinOwner(c *Client, to Recipient) (o *owner, joined bool) {
	o = h.owners.get(to)
	isNew := o == nil
	if isNew {
		to.Name = strings.Clone(to.Name) // it may be part of a large request, which must not stay in memory
		o = h.owners.add(to)
	}
	n := len(o.clients)
	if n > 0 && o.clients[n-1] == c {
		return o, false
	}
	if o.clients = append(o.clients, c); n == 0 {
		h.owners.table(to.Group).present++
		h.history.joined(o, isNew)
	}
	return o, true
}

// leave removes a client from its user and its groups. h.mu is held.
func (h *Hub) leave(c *Client) {
	h.leaveOwner(c.user, slices.Index(c.user.clients, c), false)
	set := c.memberships()
	for i := range set {
		m := &set[i]
		if h.leaveOwner(m.group, m.index, true); m.index < len(m.group.clients) {
			m.group.clients[m.index].membership(m.group).index = m.index
		}
	}
}

// leaveOwner removes the client with an index from one owner. The client with the last index takes its place.
func (h *Hub) leaveOwner(o *owner, index int, group bool) {
	last := len(o.clients) - 1
	o.clients[index] = o.clients[last]
	o.clients[last] = nil
	if o.clients = shrink(o.clients[:last]); last == 0 {
		o.clients = nil
		h.owners.table(group).present--
		h.history.left(o)
	}
}
