package load

import (
	"context"
	"strings"
	"time"
)

// A mark is how things stood when a phase began.
type mark struct {
	at           time.Time
	cpu          float64
	reads, bytes int64
	hub          Samples
}

func (r *run) mark() mark {
	m := mark{hub: r.sample(), at: time.Now(), cpu: ownCPU()}
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	m.reads, m.bytes = r.tally.reads, r.tally.bytes
	return m
}

// since is the cost from a mark to now.
func (r *run) since(m mark) (c Cost) {
	cpu := ownCPU()
	r.tally.mu.Lock()
	c = Cost{ClientCPU: cpu - m.cpu, Reads: r.tally.reads - m.reads, Bytes: r.tally.bytes - m.bytes}
	r.tally.mu.Unlock()
	if after := r.sample(); after != nil && m.hub != nil {
		c.Hub = &Hub{
			CPU:       after["process_cpu_seconds_total"] - m.hub["process_cpu_seconds_total"],
			CPUGC:     after[collectorCPU] - m.hub[collectorCPU],
			RSSBefore: int64(m.hub["process_resident_memory_bytes"]), RSSAfter: int64(after["process_resident_memory_bytes"]),
			HeapBefore: m.hub.heap(), HeapAfter: after.heap(),
			Counters: make(map[string]float64),
		}
		for name, v := range after {
			if d := v - m.hub[name]; d != 0 && strings.HasPrefix(name, "usercast_") {
				c.Hub.Counters[name] = d
			}
		}
	}
	return c
}

// collectorCPU is Go's own estimate, which it makes at the end of each cycle.
const collectorCPU = "go_cpu_classes_gc_total_cpu_seconds_total"

// heap is what the hub's Go runtime has in use.
func (s Samples) heap() int64 {
	return int64(s["go_memstats_heap_inuse_bytes"] + s["go_memstats_stack_inuse_bytes"])
}

// sample reads the hub's figures. When it cannot, that is noted and not tried again:
// a listener that hangs would make each phase wait.
func (r *run) sample() Samples {
	if r.cfg.Hub == nil || r.unread {
		return nil
	}
	s, err := r.cfg.Hub(context.Background()) // bounded by itself, and wanted after an interrupt too
	if err != nil {
		r.unread = true
		r.note("the hub's CPU, memory and counters could not be read: %v", err)
		return nil
	}
	return s
}

// per is a cost of each of n; nil of none.
func per(cost float64, n int64) *float64 {
	if n <= 0 {
		return nil
	}
	cost /= float64(n)
	return &cost
}
