package hub

// A PubSub is a hub for messages that have no ids and that are kept nowhere else: it numbers
// them itself and keeps the newest ones of each user. All methods are safe for concurrent use.
type PubSub struct{ *Hub }

// NewPubSub returns a hub without clients.
func NewPubSub(cfg Config) *PubSub { return &PubSub{newHub(cfg, nil)} }

// Publish routes one message and returns to how many clients it went; for a broadcast
// that is handed out in parts (Config.FanOut), 1 if it goes to any. It
// allocates nothing when the user is nobody that the hub knows.
func (h *PubSub) Publish(user, topic, payload string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.add(user, Entry{Topic: topic, Payload: payload})
}

// GapFor announces a gap to the clients that a message to this user and topic
// would have reached.
func (h *PubSub) GapFor(user, topic string, reason Gap) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(user, Entry{Topic: topic, Gap: reason})
}

// GapForAll announces a gap to every client: before its next message, or, when
// there is none, at a moment of its own within Config.GapSpread, lest all pages
// refetch at once.
func (h *PubSub) GapForAll(reason Gap) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addForAll(Entry{Gap: reason})
}
