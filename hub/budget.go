package hub

import (
	"slices"
	"time"
)

// A budget is the bound on all queues together. It is guarded by Hub.mu.
type budget struct {
	limit int64 // bytes
	last  time.Time
}

// budgetPause is how long the clients that were ended are given to release their memory: a
// writer may be in the middle of a system call.
const budgetPause = 100 * time.Millisecond

// exceeding returns the clients with the fullest queues, which are to be ended because all frames
// together take more than the limit. Healthy clients that share one large frame are not the
// reason: used counts it once.
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
