// Package client_test runs the browser module in a real Chromium, with several tabs,
// against the real program and a real Redis.
package client_test

import (
	"testing"

	"usercast/internal/browsertest"
	"usercast/internal/hubtest"
	"usercast/internal/need"
)

func TestMain(m *testing.M) { hubtest.Main(m, nil) }

// A world is what all tests share: starting it takes longer than most of them. Each has
// a site, and so an origin, of its own.
type world struct {
	browser *browsertest.Browser
	hub     *hub
}

// moreAlone and more are tests for which make test has no time: make measure has. Those of
// moreAlone need tabs with a process each.
var moreAlone, more map[string]func(*testing.T, world)

func TestInChromium(t *testing.T) {
	need.Program(t, browsertest.Chromium...)
	h := startHub(t, "--ping-interval", "300ms", "--max-clients-per-user", "0")
	alone, together := browsertest.Start(t), browsertest.Start(t, browsertest.OneProcess)
	run := func(browser *browsertest.Browser, tests map[string]func(*testing.T, world)) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				if browser == together {
					t.Parallel() // most of them wait
				}
				test(t, world{browser, h})
			})
		}
	}
	run(alone, moreAlone)
	run(together, more)
	run(alone, map[string]func(*testing.T, world){
		"tab with the stream crashes": leaderCrashes,
	})
	run(together, map[string]func(*testing.T, world){
		"tab with the stream is closed":                          leaderIsClosed,
		"tab with the stream freezes":                            leaderFreezes,
		"tab with the stream is closed before the first message": leaderIsClosedEarly,
		"new tab is open once it misses nothing":                 newTabIsOpen,
		"without locks each tab has a stream":                    withoutLocks,
		"hub is deployed behind a proxy that says 502":           hubIsDeployed,
		"Redis is restarted":                                     redisIsRestarted,
		"silent stream is left":                                  silentStreamIsLeft,
		"position before the first message":                      positionBeforeTheFirstMessage,
		"token is asked for anew":                                tokenIsFresh,
		"recipes for React and Vue":                              recipesWork,
		"quick start":                                            quickStartWorks,
		"topics":                                                 topics,
	})
}
