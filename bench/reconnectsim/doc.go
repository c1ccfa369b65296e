// Command reconnectsim simulates the load on a fleet of hubs, and on the app behind them, when many pages reconnect at
// the same time: after a deploy, after kill -9 of all hubs, after a Redis outage, and after a restart of the load
// balancer.
//
//	go run ./bench/reconnectsim                                  the four scenarios
//	go run ./bench/reconnectsim -only kill -sweep retry=1s,3s,10s  vary one flag
//	go run ./bench/reconnectsim -only kill -killed 1              a crash of one hub
//	go run ./bench/reconnectsim -only deploy -csv > deploy.csv   one line per tenth of a second
//
// # What it models
//
//   - EventSource (WHATWG HTML, "Server-sent events"): if its stream ends or its connection is refused, a page reconnects
//     after the last retry that it received, without backoff. A status other than 200 would close it permanently, but hubs
//     and the load balancer of docs/reverse-proxies.md do not return one.
//   - The hub: a jittered retry in each opening, bye and busy; CPU time per accepted connection; an accept queue that drops
//     SYNs when it is full (Linux retries after 1, 2, 4 … s); max-clients; drain; the spread of gaps. Session checks are
//     sent to the app. Concurrent checks of one user share a request, accepted users are cached, and the number of
//     concurrent requests is limited. If a check takes too long, the page receives busy.
//   - Resume: each hub publishes a marker when it subscribes, every 10 s, and when it begins to drain. A page resumes at a
//     hub that subscribed before the newest marker that the page knows, if the history reaches back far enough. Otherwise,
//     it receives a gap. A page whose stream ends with bye knows the newest marker, another one that of its last ping.
//   - The load balancer: health checks with a delay, least connections or affinity, a retry at another hub if one refuses
//     the connection, and a fallback response if all hubs are down.
//   - The app: one request per session check, and one request for the state whenever a page receives a gap. Its response
//     time is constant. The number of requests is a result of the simulation. The capacity of the app is not modeled.
//
// It does not model the network, TLS handshakes, and browsers that stop retrying.
//
// The simulation has one goroutine, one queue of events and one source of random numbers. The same flags and seed produce
// the same output.
package main
