package fleet

import (
	"context"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"usercast/internal/hubtest"
)

// A message is a message that the app published. Its number is its index in the list of all messages.
type message struct {
	group string // "": it is for a user
	user  string // "*": all users
	topic string
	large bool // over the hubs' size limit: pages receive a gap instead
	// uncertain: Redis did not confirm the message, so it is unknown whether it was published.
	uncertain bool
}

// channel returns the name of the message's channel.
func (m message) channel() string {
	channel := m.recipient()
	if m.topic != "" {
		channel += ":" + m.topic
	}
	return channel
}

// recipient returns the channel without the topic.
func (m message) recipient() string {
	if m.group != "" {
		return "group-" + m.group
	}
	return "user-" + m.user
}

// An audience is what decides which messages a stream receives.
type audience struct {
	user   string
	groups []string
	topics []string // nil: all
}

// includes reports whether a stream of the audience must receive a message.
func (a audience) includes(m message) bool {
	if a.topics != nil && !slices.Contains(a.topics, m.topic) {
		return false
	}
	if m.group != "" {
		return slices.Contains(a.groups, m.group)
	}
	return m.user == a.user || m.user == "*"
}

// recipients returns the recipients of messages for the audience.
func (a audience) recipients() []string {
	all := []string{message{user: a.user}.recipient(), message{user: "*"}.recipient()}
	for _, g := range a.groups {
		all = append(all, message{group: g}.recipient())
	}
	return all
}

// query returns the query of a stream for --auth insecure.
func (a audience) query() string {
	v := url.Values{"user": {a.user}, "group": a.groups, "topic": a.topics}
	return v.Encode()
}

// A duty knows which messages a page must receive: for each recipient, all from a number on. A page that was not a
// member of a group before must receive the group's messages after its position, and nothing else of what it has missed.
type duty struct {
	from     map[string]int // by recipient; nil: the page has not had a position so far
	position int            // all messages from this number on are after the page's newest position
	received int            // number of the newest message; -1: none
}

func newDuty() duty { return duty{received: -1} }

// open begins a stream. It drops the duties for groups that the user has left.
func (d *duty) open(a audience) {
	if d.from == nil {
		return
	}
	before := d.from
	d.from = make(map[string]int)
	for _, r := range a.recipients() {
		number, ok := before[r]
		if !ok {
			number = d.position
		}
		d.from[r] = number
	}
}

// complete records that the page needs nothing before a number: with its first position, or because it fetches its state
// after a gap.
func (d *duty) complete(a audience, number int) {
	d.position, d.from = number, make(map[string]int)
	for _, r := range a.recipients() {
		d.from[r] = number
	}
}

// begin returns the lowest number of a message that the page must receive. from is not nil.
func (d *duty) begin() int { return slices.Min(slices.Collect(maps.Values(d.from))) }

// missing returns the first of the messages from begin on that the page must have received.
func (d *duty) missing(a audience, messages []message) (number int, ok bool) {
	for i, m := range messages {
		if number = d.begin() + i; a.includes(m) && !m.uncertain && number >= d.from[m.recipient()] {
			return number, true
		}
	}
	return 0, false
}

// receive records a message: everything after it must still be received.
func (d *duty) receive(number int) {
	d.received = number
	for r := range d.from {
		d.from[r] = number + 1
	}
}

// everyone is the group of which most pages are members. With 2,000 pages, a hub hands its messages out in parts.
const everyone = "everyone"

func randomGroup(random *rand.Rand, groups int) string { return strconv.Itoa(random.IntN(groups)) }

// randomGroups returns some groups for a page. Group names are also user ids.
func randomGroups(random *rand.Rand, groups int) (names []string) {
	if random.IntN(5) > 0 {
		names = append(names, everyone)
	}
	for range random.IntN(4) {
		names = append(names, randomGroup(random, groups))
	}
	return names
}

// requestPosition requests a position for a page of a user, as an app does. It returns false if the hub does not work now.
func requestPosition(ctx context.Context, admin, user string, violation func(format string, args ...any)) (id string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, hubtest.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/api/users/"+user+"/position", nil)
	if err != nil {
		violation("position: %v", err)
		return "", false
	}
	r.Close = true // otherwise the connection would look like a leak of the hub
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", false // the hub was killed
	}
	defer response.Body.Close()
	var position struct{ ID string }
	err = json.NewDecoder(response.Body).Decode(&position)
	switch {
	case ctx.Err() != nil || response.StatusCode == http.StatusServiceUnavailable:
		return "", false
	case err != nil || response.StatusCode != http.StatusOK || position.ID == "":
		violation("position of user %s: %s, id %q: %v", user, response.Status, position.ID, err)
		return "", false
	}
	return position.ID, true
}
