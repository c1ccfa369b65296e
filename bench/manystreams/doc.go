// Command manystreams measures more real streams than one process has file descriptors for. For each total, it starts
// enough hubs, a redis-server, and one usercast bench per hub, which opens streams and publishes to them.
//
//	go run ./bench/manystreams                       1,000 to 100,000 streams; about five minutes
//	go run ./bench/manystreams --streams 50000       one total
//
// Each hub receives all messages, so messages for the streams of other hubs cost CPU time, too. An additional hub without
// streams measures this cost. All processes share the host. The rate of messages is the same for all totals, and low, so
// that the host is not saturated. Pings continue at the default interval. Their cost is measured before messages are
// published, and subtracted.
//
// bench/README.md explains the rows. The exit status is 1 if messages were lost, duplicated, late or delivered to another
// user, or if streams did not open or ended early.
package main
