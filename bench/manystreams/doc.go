// Command manystreams measures more real streams than one process has file descriptors for: for each total, as many
// hubs as it takes, a redis-server, and per hub one usercast bench, which opens streams there and publishes to them.
//
//	go run ./bench/manystreams                       1,000 to 100,000 streams: some five minutes
//	go run ./bench/manystreams --streams 50000       one total
//
// Every hub receives every message, so messages for the streams of other hubs cost CPU time, too. A further hub without
// streams measures how much. All processes share the machine. The rate of messages is the same for every total, and low,
// so that the machine is not saturated. Pings continue at the default interval; their cost is measured before
// anything is published, and subtracted.
//
// The rows are explained in bench/README.md. The exit status is 1 if any message was
// lost, duplicated, late, or delivered to another user, or if a stream did not open or
// ended early.
package main
