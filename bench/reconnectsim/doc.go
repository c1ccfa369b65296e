// Command reconnectsim simulates the load on a fleet of hubs, and on the app behind them, when many pages reconnect at
// the same time: after a deploy, after kill -9 of all hubs, after an outage of Redis, after a restart of the
// balancer.
//
//	go run ./bench/reconnectsim                                  the four scenarios
//	go run ./bench/reconnectsim -only kill -sweep retry=1s,3s,10s  how one value changes them
//	go run ./bench/reconnectsim -only deploy -csv > deploy.csv   a line for each tenth of a second
//
// # What it models
//
//   - EventSource (WHATWG HTML, "Server-sent events"): a page whose stream ends, or
//     whose connection is refused, asks again after the retry that it was told
//     last, without back-off. A status other than 200 would end it for good; hubs
//     and the balancer of docs/reverse-proxies.md give none.
//   - The hub: a jittered retry in each opening, bye and busy; an order of accepting
//     that costs CPU for each connection, behind an accept queue that drops what it
//     cannot hold (Linux asks again after 1, 2, 4 … s); auth through the app, asked
//     once for concurrent questions about one user, a yes kept, so many at once, and
//     busy when it takes too long; max-clients; drain; the spread of gaps.
//   - The balancer: health checks with a delay, least connections or affinity, another
//     hub when one refuses, and the "away" answer when there is none.
//   - The app: one request for each log-in asked for, and one for the state whenever
//     a page hears a gap. It always answers in the same time: what it is asked for is
//     the result, not what it can bear.
//
// It does not model the network, TLS handshakes, and browsers that give up.
//
// One goroutine, one queue of events, one source of chance: the same flags and seed
// give the same output.
package main
