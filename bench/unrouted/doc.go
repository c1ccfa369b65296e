// Command unrouted measures what a message costs Redis and a hub that has no stream for it. In a fleet, that is nearly
// every message at every hub.
//
//	make build
//	go run ./bench/unrouted -what egress          Redis, by the number of subscribers
//	go run ./bench/unrouted -what hub             hubs that receive messages without a stream
//	go run ./bench/unrouted -what hub -feed stream
//
// It starts a redis-server of its own, and for hub that many hubs, on loopback ports
// from -port on, and reads their CPU time from /proc (Linux). Everything shares the
// machine: rates are those at which the machine, not one process, is full; the CPU
// for each message is what carries over.
package main
