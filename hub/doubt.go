package hub

// Miss records that this hub has missed messages after a marker. Until Settle, and for ids from before it later on, a
// client whose id lies behind that marker receives the gap missed. An unknown marker stands for the start of the
// generation.
func (p *PubSub) Miss(after MarkerName) {}

// Announce announces the gap missed to all clients. It is called right after Mark, with the first marker after Miss.
func (p *PubSub) Announce() {}

// Settle says that the newest Mark was the marker with which this hub has announced to the others what it has missed:
// ids that count from it, or from later ones, are not in doubt.
func (p *PubSub) Settle() {}

// Doubt is Miss for another hub, whose announcement was the newest Mark: clients that resumed here since then receive
// the gap.
func (p *PubSub) Doubt(after MarkerName) {}

// doubts are the ids whose place is in doubt. They are guarded by Hub.mu.
type doubts struct{}

// has reports whether a client that comes with an id, whose place is known, must receive the gap missed.
func (d *doubts) has(located) bool { return false }
