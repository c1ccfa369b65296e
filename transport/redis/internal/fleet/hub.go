package fleet

import "time"

// A Hub is one hub of the fleet, as its newest marker describes it.
type Hub struct {
	Name    string `json:"name"` // chosen by an operator; not unique
	Version string `json:"version"`
	Streams int    `json:"streams"`
	Users   int    `json:"users"` // with an open stream

	Age  time.Duration `json:"-"` // since its newest marker was received; negative if none was, which is possible for Self only
	Self bool          `json:"-"` // this hub

	// Why its markers do not count here.
	OtherServer   bool `json:"-"` // it is subscribed to another server process, or does not know to which
	OtherPatterns bool `json:"-"` // it is subscribed to other patterns
}
