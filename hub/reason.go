package hub

// A Reason is why a client ended. String returns the value in logs and metric labels.
type Reason uint8

// The reasons. The zero Reason means that the client has not ended.
const (
	ReasonClosed  Reason = iota + 1 // the browser disconnected: FIN or reset
	ReasonDead                      // the peer no longer acknowledges data
	ReasonSlow                      // the queue overflowed, or a write exceeded the write timeout
	ReasonExpired                   // the authentication expired
	ReasonMaxAge                    // the stream reached its maximum age
	ReasonKicked                    // an operator or the app disconnected the user
	ReasonDrain                     // the process is stopping
	ReasonPoll                      // a long poll has sent its response, or reached its maximum time
	ReasonFailed                    // anything else, "error" in logs and labels

	reasonCount = iota + 1
)

var reasonWords = [reasonCount]string{"", "closed", "dead", "slow", "expired", "max_age", "kicked", "drain", "poll", "error"}

func (r Reason) String() string { return reasonWords[r] }

// Reasons returns every reason.
func Reasons() []Reason {
	all := make([]Reason, 0, reasonCount-1)
	for r := ReasonClosed; r < reasonCount; r++ {
		all = append(all, r)
	}
	return all
}
