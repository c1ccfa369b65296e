package sse

// Open is the number of connections that a Crowd counts now.
func (c *Crowd) Open() int64 { return c.open.Load() }
