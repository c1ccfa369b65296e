// Command foreign measures what a message costs Redis and a hub that has no stream
// for it: in a fleet, nearly every message at every hub.
//
//	make build
//	go run ./bench/foreign -what egress          Redis, by the number of subscribers
//	go run ./bench/foreign -what hub             hubs that hear messages for nobody
//	go run ./bench/foreign -what hub -feed stream
//
// It starts a redis-server of its own, and for hub that many hubs, on loopback ports
// from -port on, and reads their CPU time from /proc (Linux). Everything shares the
// machine: rates are those at which the machine, not one process, is full; the CPU
// for each message is what carries over.
package main
