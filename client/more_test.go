//go:build measure

package client_test

import "testing"

func init() {
	moreAlone = map[string]func(*testing.T, world){
		"tab with the stream hangs":                  leaderHangs,
		"tab with the stream reloads":                leaderReloads,
		"tab that slept for too long hears of a gap": longSleeperHearsGap,
		"tab comes back from the back/forward cache": tabComesBack,
	}
	more = map[string]func(*testing.T, world){
		"hub is full": hubIsFull,
		"tabs of another share have a stream of their own":    sharesAreApart,
		"silence is measured by pings":                        silenceIsMeasured,
		"stream that had no id yet is not taken over quietly": noIDYet,
		"refused stream comes back later and later":           refusedComesBack,
		"online is the time to come back":                     onlineComesBack,
		"exceptions reach the page":                           exceptions,
		"closed stream is closed":                             closedIsClosed,
	}
}
