// Package client_test runs the browser module in a real Chromium, with several tabs,
// against the real program and a real Redis.
package client_test

import (
	"testing"

	"usercast/internal/browsertest"
)

// A world is what all tests share: starting it takes longer than most of them. Each has
// a site, and so an origin, of its own.
type world struct {
	browser *browsertest.Browser
	program string
	hub     *hub
}

func TestInChromium(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	program := buildHub(t)
	h := startHub(t, program, "--ping-interval", "300ms", "--max-clients-per-user", "0")
	run := func(browser *browsertest.Browser, tests map[string]func(*testing.T, world)) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) { test(t, world{browser, program, h}) })
		}
	}
	run(browsertest.Start(t), map[string]func(*testing.T, world){
		"tab with the stream is closed":              leaderIsClosed,
		"tab with the stream reloads":                leaderReloads,
		"tab with the stream crashes":                leaderCrashes,
		"tab with the stream freezes":                leaderFreezes,
		"tab with the stream hangs":                  leaderHangs,
		"tab that slept for too long hears of a gap": longSleeperHearsGap,
		"tab comes back from the back/forward cache": tabComesBack,
	})
	run(browsertest.Start(t, browsertest.OneProcess), map[string]func(*testing.T, world){
		"new tab is open once it misses nothing":              newTabIsOpen,
		"tabs of another share have a stream of their own":    sharesAreApart,
		"without locks each tab has a stream":                 withoutLocks,
		"hub is deployed behind a proxy that says 502":        hubIsDeployed,
		"Redis is restarted":                                  redisIsRestarted,
		"hub is full":                                         hubIsFull,
		"silent stream is left":                               silentStreamIsLeft,
		"silence is measured by pings":                        silenceIsMeasured,
		"stream that had no id yet is not taken over quietly": noIDYet,
		"token is asked for anew":                             tokenIsFresh,
		"refused stream comes back later and later":           refusedComesBack,
		"online is the time to come back":                     onlineComesBack,
		"recipes for React and Vue":                           recipesWork,
		"quick start":                                         quickStartWorks,
		"topics":                                              topics,
		"exceptions reach the page":                           exceptions,
		"closed stream is closed":                             closedIsClosed,
	})
}
