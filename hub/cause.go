package hub

// A Cause is why a client ended. The word of Error is the log field and the
// metric label as well.
type Cause uint8

// The causes. The zero Cause means: not ended.
const (
	ErrClosed  Cause = iota + 1 // the browser left: FIN or reset
	ErrDead                     // the peer acknowledges nothing any more
	ErrSlow                     // the queue overflowed, or the reader took nothing for the write timeout
	ErrExpired                  // the log-in ran out
	ErrMaxAge                   // the stream reached its maximum age
	ErrKicked                   // an operator or the app asked for it
	ErrDrain                    // the process is stopping
	ErrPoll                     // a long poll was answered, or waited for as long as it may
	ErrFailed                   // anything else, "error" in logs and labels

	causeCount = iota + 1
)

var causeWords = [causeCount]string{"", "closed", "dead", "slow", "expired", "max_age", "kicked", "drain", "poll", "error"}

func (c Cause) Error() string { return causeWords[c] }

// Causes lists every cause, for those who must name them all (metrics do).
func Causes() []Cause {
	all := make([]Cause, 0, causeCount-1)
	for c := ErrClosed; c < causeCount; c++ {
		all = append(all, c)
	}
	return all
}

// A Gap is the reason why the hub cannot prove that a stream is complete.
type Gap uint8

// The gaps of the contract.
const (
	GapRedisReconnect Gap = iota + 1 // the subscription was made anew
	GapHistoryExpired                // the id is older than what is kept
	GapUnknownID                     // the id is not one of this process
	GapTooLarge                      // a message was over the payload limit
	GapFeedReset                     // the feed went back behind what was read

	gapCount = iota + 1
)

var gapWords = [gapCount]string{"", "redis-reconnect", "history-expired", "unknown-id", "too-large", "feed-reset"}

func (g Gap) String() string { return gapWords[g] }

// Gaps lists every gap, for those who must name them all (metrics do).
func Gaps() []Gap {
	all := make([]Gap, 0, gapCount-1)
	for g := GapRedisReconnect; g < gapCount; g++ {
		all = append(all, g)
	}
	return all
}
