//go:build measure

package client_test

import "testing"

func init() {
	moreAlone = map[string]func(*testing.T, world){
		"tab with the stream is unresponsive":            leaderIsUnresponsive,
		"tab with the stream reloads":                    leaderReloads,
		"tab that is frozen for too long receives a gap": longFrozenGetsGap,
		"tab returns from the back/forward cache":        tabReturns,
	}
	more = map[string]func(*testing.T, world){
		"hub is at capacity":                             hubIsAtCapacity,
		"tabs with another share have a separate stream": sharesAreApart,
		"silence depends on the ping interval":           silenceIsMeasured,
		"takeover of a stream without an id sends a gap": noIDYet,
		"rejected stream retries with growing delays":    rejectedRetries,
		"online event reconnects":                        onlineReconnects,
		"exceptions are reported to the page":            exceptions,
		"closed stream stays closed":                     closedIsClosed,
	}
}
