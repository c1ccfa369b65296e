package hub

// A ClientState is how a client is at one moment, for those who look at it from
// outside.
type ClientState struct {
	QueuedFrames int // waiting
	QueuedBytes  int // waiting or being written
	// LastID is the place up to which all that concerns the client was handed to its
	// consumer: the browser has it, or will once what is being written has arrived.
	LastID ID
}

// State may be called from any goroutine.
func (c *Client) State() ClientState {
	h := c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.index >= 0 {
		h.catchUp(c)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	last := h.pos
	if c.end != nil {
		last = c.end.final
	}
	last = later(last, c.skip)
	switch {
	case c.replay != nil:
		last = c.replay.cursor
	case len(c.queue) > 0:
		last = c.queue[0].ID.point().pred()
	}
	return ClientState{QueuedFrames: len(c.queue), QueuedBytes: c.bytes + c.flight, LastID: h.id(last)}
}
