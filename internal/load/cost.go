package load

import (
	"context"
	"strings"
	"time"
)

// A mark is a snapshot of the counters at the beginning of a phase.
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

// since returns the cost since a mark.
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

// collectorCPU is an estimate of the Go runtime, updated at the end of each collection.
const collectorCPU = "go_cpu_classes_gc_total_cpu_seconds_total"

// heap returns the heap and stack memory in use by the hub's Go runtime.
func (s Samples) heap() int64 {
	return int64(s["go_memstats_heap_inuse_bytes"] + s["go_memstats_stack_inuse_bytes"])
}

// sample reads the metrics of the hub. It adds a note for the first failure and does not retry, because an unresponsive
// listener would delay each phase.
func (r *run) sample() Samples {
	if r.cfg.Hub == nil || r.unread {
		return nil
	}
	s, err := r.cfg.Hub(context.Background()) // Hub has a timeout, and an interrupted run needs the metrics, too
	if err != nil {
		r.unread = true
		r.note("cannot read the CPU, memory and counters of the hub: %v", err)
		return nil
	}
	return s
}

// per divides a cost by n. It returns nil if n is 0.
func per(cost float64, n int64) *float64 {
	if n <= 0 {
		return nil
	}
	cost /= float64(n)
	return &cost
}
