// Package client_test runs the browser module in Chromium with several tabs, with the built
// program and a Redis server.
package client_test

import (
	"testing"

	"usercast/internal/browsertest"
	"usercast/internal/hubtest"
	"usercast/internal/need"
)

func TestMain(m *testing.M) { hubtest.Main(m, nil) }

// A world contains the processes that all tests share, because starting them takes longer than
// most tests. Each test has its own site, and therefore its own origin.
type world struct {
	browser *browsertest.Browser
	hub     *hub
}

// more and moreAlone are slower tests, which only make measure runs. In moreAlone, each tab needs
// its own process.
var moreAlone, more map[string]func(*testing.T, world)

func TestInChromium(t *testing.T) {
	need.Program(t, browsertest.Chromium...)
	h := startHub(t, "--ping-interval", "300ms", "--max-clients-per-user", "0")
	alone, together := browsertest.Start(t), browsertest.Start(t, browsertest.OneProcess)
	run := func(browser *browsertest.Browser, tests map[string]func(*testing.T, world)) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				if browser == together {
					t.Parallel() // most of the time, the tests wait
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
		"new tab is open when it receives all messages":          newTabIsOpen,
		"without locks each tab has a stream":                    withoutLocks,
		"hub is deployed behind a proxy that returns 502":        hubIsDeployed,
		"Redis is restarted":                                     redisIsRestarted,
		"silent stream is replaced":                              silentStreamIsReplaced,
		"position before the first message":                      positionBeforeTheFirstMessage,
		"token is requested for each stream":                     tokenIsFresh,
		"recipes for React and Vue":                              recipesWork,
		"quick start":                                            quickStartWorks,
		"topics":                                                 topics,
	})
}
