// Package redis brings messages from Redis to a hub: over pub/sub (PubSub) or from a Redis
// stream (StreamFeed). Commands publish to either.
//
// # The path of a message
//
//	subscription.receive  waits for a message, corks the streams, hands over what has come, uncorks
//	  topology.Conn         one connection under go-redis, which parses replies
//	    resp.CheckedConn      checks each reply before go-redis reads it, and counts whole ones
//	      netpoll.ReadConn      reads the socket
//	PubSub.route          splits the channel into user and topic, counts, calls hub.PubSub.Publish
//
// The stream feed does the same with the entries of one reply: reader.next waits for a page of
// entries, checks that none is missing before them, and hands them to hub.StreamFeed.Append.
//
// # Files and packages
//
//	session.go           what both feeds share: one connection after another, probes, pauses
//	pubsub*.go           the pub/sub feed: subscription, watchdog, probe
//	stream*.go           the stream feed: reading, checking for losses and resets, queries
//	commands, append, pipeline   publishing
//	inspect              checks whether a Redis is fit for a hub; public
//	internal/topology    the server: URL, connections, Sentinels, cluster, errors
//	internal/resp        the protocol, with bounded memory
//	internal/acl         the rights that a hub needs
//	internal/pause       waiting times
//
// # Guarantees
//
//   - Each PubSub has one subscription connection, named usercast. A message is handed over on the
//     goroutine that read it, in the order in which Redis sent it, and reading waits for
//     nothing else.
//   - Each subscription is a generation with a number, announced as a gap before its first message.
//     What Redis published between two generations is lost: pub/sub keeps nothing. Within one
//     generation nothing is skipped.
//   - The connection recovers automatically. It is closed when it ends, does not answer in time
//     (watchdog), leads to another primary than a new connection would (probe), brings a reply
//     that cannot be right, or a probe does not come back. A new one is made after a
//     jittered pause.
//   - Each error is logged once, with what to do about it. No password is in a log or an error.
//   - A missing right is logged once, and the feed does without it, except for the right to
//     subscribe or read.
//   - Received = Routed + Unrouted + Malformed + TooLarge in Stats, when nothing moves.
//   - Control commands come over the same connection. Every connected hub receives them.
//
// # The stream feed
//
// A StreamFeed follows one Redis stream. Its cursor outlives its connections, so it misses
// nothing that Redis still has. From the counts of XINFO (Redis 7) it finds that entries were
// trimmed before they were read, or that the stream went backwards; before Redis 7
// it takes a trimmed cursor for a loss. An entry that is missing on another server than
// the one that had it is a reset. Queries for older entries are answered by one scanner, over
// a connection of its own that is closed when idle, hundreds in one pass, the one that has waited
// longest first. Replies with entries are bounded in bytes (stream_page.go). Control commands take
// effect also where the entries around them became a gap (stream_control.go). In a cluster MOVED and
// ASK are followed.
//
// # Where Redis is
//
// One primary at a fixed address; or the primary that Sentinels name: a feed requests its
// address for each new connection, and every 2 s to notice a failover; or a cluster, in which
// every node passes on what is published, so that a subscription to any one of them is enough.
// A command on a key goes to the key's owner, which is requested for each connection.
//
// # Not covered
//
// A feed does not know what Redis never sent, or that a message was published
// while no generation was connected. A PUBLISH is not retried: a second try could
// publish twice. Between the nodes of a cluster Redis itself passes messages on
// without any guarantee; a probe finds a node that receives nothing, but not
// a short interruption.
//
// # How go-redis is used
//
// Only in this directory. Four of its habits are worked around in internal/topology and
// internal/resp: it panics at unexpected replies and allocates what they announce, so they
// are checked before it reads them; its PubSub re-dials and re-subscribes
// inside a failing Receive, which would hide the gap, so its dialer works once; a
// canceled context does not wake Receive, so the socket is closed under it; it writes a log of
// its own to stderr, which belongs to the process: see DisableClientLog.
//
// # Owners
//
//	socket of a subscription    topology.Conn; closed when the generation's context ends
//	socket of a probe           topology.Conn; closed before the probe awaits its echo
//	goredis.Client and PubSub   topology.Conn; only the receiving goroutine calls Receive
//	socket for a question       topology.Conn; to a Sentinel, or to a node that knows
//	                            a key's owner; closed before its answer is used
//	sockets for commands        Commands: at most 4, lent to one caller at a time
//	receiving goroutine         the caller of Run; it alone calls the hub
//	prober                      session.generation starts it and waits for it
//	watchdog                    subscription.receive starts it and waits for it
//	scanner                     StreamFeed.Run starts it and waits for it
//	echo channel (1 slot)       filled by the receiving goroutine, emptied by the
//	                            prober; the slot keeps the former from waiting
//	message counters            written by the receiving goroutine alone
//	probe histogram             prober writes, Stats reads
//	timer of idle commands      Commands; no goroutine while it waits
package redis
