package hub

// UserParts is the number of parts of the users of a hub: see Users.
const UserParts = 64

// maxArrivals is the maximum number of arrivals that are recorded until Arrivals is called.
const maxArrivals = 1 << 14

// arrivals are users whose first client has registered, for a program that publishes which users are online. It is guarded by Hub.mu.
type arrivals struct {
	wake  func() // nil: nothing is recorded
	users []string
	all   bool // more than maxArrivals
}

func (a *arrivals) add(user string) {
	switch {
	case a.wake == nil:
		return
	case len(a.users) == maxArrivals:
		a.all = true
		return
	}
	if a.users = append(a.users, user); len(a.users) == 1 {
		a.wake()
	}
}

// NotifyArrivals makes the hub record each user who had no client when a client registered. It calls wake when there is
// something new for Arrivals. wake must not block, nor call the hub.
func (h *Hub) NotifyArrivals(wake func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arrivals = arrivals{wake: wake}
}

// Arrivals returns the users who were recorded since the previous call. A user who left and arrived again is in the list more
// than once. all means that there were too many users to record all of them.
func (h *Hub) Arrivals() (users []string, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	users, all = h.arrivals.users, h.arrivals.all
	h.arrivals.users, h.arrivals.all = nil, false
	return users, all
}

// Users returns the users with a client in one of UserParts parts, so that a caller that visits all of them does not hold the
// lock for long. A user is always in the same part.
func (h *Hub) Users(part int) (users []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, o := range h.owners.users.parts[part].entries {
		if len(o.clients) > 0 {
			users = append(users, name)
		}
	}
	return users
}
