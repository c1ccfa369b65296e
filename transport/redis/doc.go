// Package redis receives messages from Redis and passes them to a hub: over pub/sub (PubSub) or
// from a Redis stream (StreamFeed). Commands publishes to either.
//
// # The path of a message
//
//	subscription.receive  waits for a message, corks the streams, handles all that have arrived, uncorks
//	  topology.Conn         one connection; go-redis parses its replies
//	    resp.CheckedConn      checks each reply before go-redis reads it, and counts complete ones
//	      netpoll.ReadConn      reads the socket
//	PubSub.route          splits the channel into user and topic, counts, calls hub.PubSub.Publish
//
// The stream feed does the same with the entries of one reply: reader.next waits for a page of
// entries, checks that none is missing before them, and passes each to hub.StreamFeed.Append.
//
// # Files and packages
//
//	session.go           what both feeds share: one connection after another, probes, backoff
//	pubsub*.go           the pub/sub feed: subscription, watchdog, probe, markers, places
//	stream*.go           the stream feed: reading, checking for losses and resets, queries
//	commands, append, pipeline   publishing
//	presence.go          the users that are online; independent of the feeds
//	inspect              checks whether a Redis is suitable for a hub; public
//	internal/fleet       the hubs of one Redis: what markers contain, and what follows from them
//	internal/lease       the set of these users in Redis
//	internal/topology    the server: URL, connections, Sentinels, cluster, errors
//	internal/resp        the protocol, with bounded memory
//	internal/acl         the permissions that a hub needs
//	internal/pause       backoff and jitter
//
// # Guarantees
//
//   - Each PubSub has one subscription connection, named usercast. The goroutine that reads it
//     also calls the hub, in the order in which Redis sent the messages. Between batches it writes
//     to streams (Corker), but never waits for a client.
//   - Each subscription is a generation with a number, announced as a gap before its first message.
//     Messages that were published between two generations are lost, because pub/sub keeps
//     nothing. Within one generation no message is skipped, and each is counted (R1, R2 of
//     docs/decisions/0051-markers.md).
//   - The connection recovers automatically: it is replaced after a jittered pause. This happens
//     when Redis closes it, does not respond in time (watchdog), or sends an invalid reply. It also
//     happens when a new connection reaches another primary or a probe does not arrive (probe).
//   - Each error is logged once, with what to do about it. Logs and errors never contain a password.
//   - A missing permission is logged once, and the feed works without it. It cannot work without
//     the permission to subscribe or to read.
//   - A message has the same id at all hubs whose markers count for each other. A client whose id a
//     hub does not know waits until the hub is certain that it is not behind (R6, R7).
//   - Messages that another hub received and this one did not are announced as a gap (R10, R11).
//   - Received = Routed + Unrouted + Malformed + TooLarge in Stats, while the feed is idle.
//   - Control commands arrive over the same connection. Every connected hub receives them.
//
// # The stream feed
//
// A StreamFeed follows one Redis stream. It keeps its cursor, the id of the last entry it has read,
// when a connection ends, so it misses no entry that Redis still has.
//
//   - Losses and resets (stream_check.go): the counts of XINFO (Redis 7) show whether entries were
//     trimmed before they were read, or whether the stream went backwards (a reset). Before Redis
//     7, a trimmed entry at the cursor counts as a loss. If another server does not have the entry
//     at the cursor, that is a reset.
//   - Queries for older entries (stream_query.go): one scanner answers up to hundreds of them in one
//     pass, the oldest query first. It has a separate connection, which is closed when idle.
//   - Replies with entries are bounded in bytes (stream_page.go).
//   - Control commands take effect even if the entries around them were replaced by a gap
//     (stream_control.go).
//   - In a cluster, the feed follows MOVED and ASK.
//
// # Where Redis is
//
//   - A fixed address: one primary.
//   - Sentinels: a feed requests the primary's address for each new connection, and about every
//     2 s to detect a failover.
//   - A cluster: every node forwards published messages to all others. All hubs subscribe to the
//     primary that owns the slot of the control channel, because only there do they receive all
//     messages in the same order. Probes follow that primary. While it is unavailable, all hubs try
//     the other nodes in the same order. For a command on a key, each new connection looks up the
//     key's owner.
//
// # Not covered
//
// A feed cannot know about messages that Redis did not send, such as those published while no
// generation was connected. A PUBLISH is not retried, because a second try could publish twice.
// Redis forwards messages between the nodes of a cluster without any guarantee: a probe finds a
// node that receives nothing, but not a short interruption. All hubs are at the same node, so they do
// not find it by comparing what they have received.
//
// # How go-redis is used
//
// Only this package and the packages below it import go-redis. They work around four properties
// of it (internal/topology, internal/resp):
//
//	it panics at unexpected replies, and      replies are checked before it reads them
//	allocates the length that they announce
//	its PubSub reconnects inside Receive,     its dialer works only once
//	which would hide the gap
//	a canceled context does not wake Receive  the socket is closed
//	it logs to stderr                         the program calls DisableClientLog
//
// # Owners
//
//	socket of a subscription    topology.Conn; closed when the generation's context ends
//	socket of a probe           topology.Conn; closed before the prober waits for the echo
//	goredis.Client and PubSub   topology.Conn; only the receiving goroutine calls Receive
//	socket for markers          markerWriter; a topology.Conn
//	socket for a lookup         topology.Conn; to a Sentinel, or to a node that knows
//	                            a key's owner; closed before its reply is used
//	socket of the scanner       the scanner; closed when idle
//	sockets for commands        Commands: at most 3, lent to one caller at a time
//	receiving goroutine         the caller of Run; it alone calls the hub, except that locate calls
//	                            Waiting, confirm calls Confirmed, and the scanner Query.Answer
//	prober                      started by session.generation, which waits for it
//	watchdog, sender of PINGs   started by subscription.receive, which waits for all of them
//	(soft limit), locate,
//	confirm, writeMarkers
//	presence                    the caller of Presence.Run
//	scanner                     started by StreamFeed.Run, which waits for it
//	echo channel (1 slot)       the receiving goroutine sends, the prober receives; with the
//	                            slot, sending does not block
//	fleet.Member                the receiving goroutine counts and receives markers; writeMarkers
//	                            composes them; it has a separate lock
//	channels waiting, replies,  wake locate, confirm and writeMarkers; sending does not block
//	unconfirmed, due (1 slot)
//	channel writeNow            any goroutine sends, writeMarkers receives and answers
//	channel large (1 slot)      the receiving goroutine sends, the sender of PINGs receives
//	TLS files                   topology.Server; read again by the goroutine that connects
//	message counters            written by the receiving goroutine alone
//	probe histogram             prober writes, Stats reads
//	timer of idle connections   Commands; no goroutine while it waits
package redis
