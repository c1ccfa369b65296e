// Command unrouted measures the cost of a message at Redis, and at a hub without streams for it. In a fleet, this applies to
// nearly all messages at each hub.
//
//	make build
//	go run ./bench/unrouted -what egress          Redis, by the number of subscribers
//	go run ./bench/unrouted -what hub             hubs that receive messages without having streams for them
//	go run ./bench/unrouted -what hub -feed stream
//
// It starts a separate redis-server and, for hub, the given numbers of hubs, on loopback ports from -port upward. It reads
// their CPU time from /proc (Linux). All processes share the host, so the highest rates are those of the host, not of one
// process. The CPU time per message also applies to other setups.
package main
