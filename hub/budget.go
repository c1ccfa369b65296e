package hub

import (
	"slices"
	"time"
)

// A budget limits the total size of all queues. It is guarded by Hub.mu.
type budget struct {
	limit int64 // bytes
	last  time.Time
}

// budgetPause is the minimum time between two rounds of ending clients. It lets the ended clients release
// their memory: a writer may be in a system call.
const budgetPause = 100 * time.Millisecond

// exceeding returns the clients to end because all frames together exceed the limit: those with the fullest
// queues. used counts a shared frame once, so healthy clients that share a large frame do not cause this.
func (b *budget) exceeding(used int64, clients []*Client) (fullest []*Client) {
	excess := used - b.limit
	if excess <= 0 || time.Since(b.last) < budgetPause {
		return nil
	}
	b.last = time.Now()
	type holding struct {
		client *Client
		bytes  int
	}
	var all []holding
	for _, c := range clients {
		if n := c.held(); n > 0 {
			all = append(all, holding{c, n})
		}
	}
	slices.SortFunc(all, func(a, b holding) int { return b.bytes - a.bytes })
	for _, q := range all {
		if excess <= 0 {
			break
		}
		fullest = append(fullest, q.client)
		excess -= int64(q.bytes)
	}
	return fullest
}
