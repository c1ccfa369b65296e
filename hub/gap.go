package hub

// A Gap is the reason why the hub cannot prove that a stream is complete.
type Gap uint8

// The reasons for a gap. Their names are part of the public contract.
const (
	GapRedisReconnect Gap = iota + 1 // the feed made a new subscription
	GapHistoryExpired                // the id is older than the history
	GapUnknownID                     // the id was not assigned by this process, or by this log
	GapTooLarge                      // a message was over the payload limit
	GapFeedReset                     // the log went backwards: entries that were read may be missing from it
	GapMissed                        // the hub missed messages although its connection stayed open

	gapCount = iota + 1
)

var gapWords = [gapCount]string{"", "redis-reconnect", "history-expired", "unknown-id", "too-large", "feed-reset", "missed"}

func (g Gap) String() string { return gapWords[g] }

// Gaps returns every gap.
func Gaps() []Gap {
	all := make([]Gap, 0, gapCount-1)
	for g := GapRedisReconnect; g < gapCount; g++ {
		all = append(all, g)
	}
	return all
}
