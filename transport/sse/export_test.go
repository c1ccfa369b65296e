package sse

// Open is the number of connections that a Crowd counts now.
func (c *Crowd) Open() int64 { return c.open.Load() }

// Rechecks returns how many streams are to be checked once more.
func (h *Handler) Rechecks() int64 { return h.rechecks.pending.Load() }
