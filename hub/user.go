package hub

import (
	"slices"
	"strings"
	"time"
)

// A user is what the hub knows of one user id: the clients that are here, and the
// newest entries, for those who come back. All fields are guarded by Hub.mu.
type user struct {
	name    string
	clients []*Client
	kept    deque[*kept]
	// floor is where the entries that are kept begin: all later ones of this user
	// are among them. With a log, Hub.floor says it for all users.
	floor   point
	left    *departure // nil: somebody is here, or there is a log
	charged bool       // the history pays for it: nobody is here
}

// A departure is a user without a client, whose entries are kept for a while.
type departure struct {
	user           *user
	at             time.Duration // Hub.born
	earlier, later *departure
}

// departures lists the users that have left, one departure of each, first come first.
type departures struct{ first, last *departure }

func (l *departures) add(d *departure) {
	if d.earlier = l.last; l.last == nil {
		l.first = d
	} else {
		l.last.later = d
	}
	l.last = d
}

func (l *departures) remove(d *departure) {
	if d.earlier == nil {
		l.first = d.later
	} else {
		d.earlier.later = d.later
	}
	if d.later == nil {
		l.last = d.earlier
	} else {
		d.later.earlier = d.earlier
	}
}

// userOverhead is about what a user without entries costs beside its name, in bytes: the
// user, its departure and its place in the table.
const userOverhead = 256

// arrive adds a client to its user.
func (h *Hub) arrive(c *Client, name string) {
	u := h.users.get(name)
	if u == nil {
		u = &user{name: strings.Clone(name), floor: h.pos} // not the whole request that it was read from
		h.users.set(u.name, u)
	}
	if len(u.clients) == 0 {
		h.present++
		h.returned(u)
		h.charge(u, false)
	}
	u.clients = append(u.clients, c)
	c.user = u
}

// depart takes a client out of its user.
func (h *Hub) depart(c *Client) {
	u := c.user
	last := len(u.clients) - 1
	i := slices.Index(u.clients, c)
	u.clients[i] = u.clients[last]
	u.clients[last] = nil
	u.clients = u.clients[:last]
	if last > 0 {
		return
	}
	u.clients = nil
	h.present--
	switch {
	case h.isLog():
		h.charge(u, true)
		h.forgetIfEmpty(u)
		h.trim()
	case h.cfg.HistoryPerUser <= 0 || h.cfg.HistoryAge <= 0:
		h.forget(u)
	default:
		u.left = &departure{user: u, at: time.Since(h.born)}
		h.departures.add(u.left)
		h.charge(u, true)
		h.trim()
		h.scheduleSweep()
	}
}

// forget drops a user without clients and all that is kept of it.
func (h *Hub) forget(u *user) {
	for u.kept.len() > 0 {
		h.drop(u.kept.at(0))
	}
	h.returned(u)
	h.charge(u, false)
	h.users.remove(u.name)
}

// returned takes the departure of a user, if any, out of the list.
func (h *Hub) returned(u *user) {
	if u.left != nil {
		h.departures.remove(u.left)
		u.left = nil
	}
}

// charge makes the history pay for a user who is not here, or no longer.
func (h *Hub) charge(u *user, yes bool) {
	switch cost := int64(userOverhead + len(u.name)); {
	case yes && !u.charged:
		h.keptBytes += cost
	case !yes && u.charged:
		h.keptBytes -= cost
	}
	u.charged = yes
}

// forgetIfEmpty drops a user of whom nothing is here. With a log, what is kept of
// all users has one floor, so nothing is lost with the user.
func (h *Hub) forgetIfEmpty(u *user) {
	if u != &h.everybody && len(u.clients) == 0 && u.kept.len() == 0 {
		h.charge(u, false)
		h.users.remove(u.name)
	}
}
