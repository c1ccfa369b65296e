// Package redis brings messages from Redis to whoever routes them. It knows
// nothing of users' streams: it takes funcs, and calls them.
//
// # What it promises
//
//   - One subscription connection per PubSub, named usercast, whatever else
//     happens. A message is handed over on the goroutine that read it, in the
//     order in which Redis sent it, and reading never waits for anything else.
//   - Every subscription connection is a generation with a number, announced
//     before its first message. What Redis published between two generations is
//     lost: pub/sub keeps nothing. Within one generation nothing is skipped.
//   - The link heals itself. A connection that ends, that does not answer in time
//     (watchdog), or that leads to another primary than a new connection would
//     (probe), is given up, and a new one is made after a jittered pause. So is one over
//     which a reply comes that cannot be right, or whose probe does not come back.
//   - Each fault is logged once, in words that say what to do. No password
//     reaches a log or an error.
//   - Rights that are missing are named once and gone without, but for the right to
//     subscribe.
//   - Received = Routed + Unrouted + Malformed + TooLarge in Stats, at rest.
//   - Orders come over the same connection. Whoever is connected hears them.
//
// # The stream feed
//
// A Log follows one Redis stream. Its cursor outlives its connections, so it misses
// nothing that Redis still has; that something was trimmed before it was read, or
// that the stream went backwards, it finds with XINFO's counts (Redis 7; before that
// it takes a trimmed cursor for a loss). An entry that is missing on another server than
// the one that had it is a reset. Queries for older entries are answered by one scanner, over
// a connection of its own that is closed when idle, hundreds in one pass, the one that has waited
// longest first. Replies with entries are bounded in bytes (logConn). Control commands take
// effect also where the entries around them became a gap (log_control.go). In a cluster MOVED and
// ASK are followed.
//
// # Where Redis is
//
// One primary at a fixed address; or the primary that Sentinels name, who are
// asked for every new connection, and every other second whether they still mean
// the one that is subscribed to; or a cluster, in which every node passes on what
// is published, so that the subscription stands at any one of them. A command on
// a key goes to the key's owner, for which the cluster is asked anew for each
// connection. See sentinel.go and cluster.go.
//
// # What it does not
//
// It cannot tell what Redis never handed over, nor that a message was published
// while no generation lived. It does not retry a PUBLISH: a second try could
// publish twice. Between the nodes of a cluster Redis itself passes messages on
// without any guarantee; a node to which nothing gets through is found by a probe,
// a short interruption is not.
//
// # How go-redis is used
//
// Only here, and against its grain in four places, all in link.go, replies.go and
// client.go: it panics at odd replies and takes memory by what they announce, so they
// are checked before it reads them; its PubSub re-dials and re-subscribes by itself
// inside a failing Receive, which would hide the gap, so its dialer works once; a
// cancelled context does not wake Receive, so the socket is closed under it; its own
// log is switched off.
//
// # Who owns what
//
//	socket of a subscription    link; closed when the generation's context ends
//	socket of a probe           link; closed before the probe awaits its echo
//	goredis.Client and PubSub   link; only the receiving goroutine calls Receive
//	socket for a question       link; to a Sentinel, or to a node that is asked for
//	                            a key's owner; closed before its answer is used
//	sockets for commands        Commands: at most 4, lent to one caller at a time
//	receiving goroutine         the caller of Run; it alone calls the sinks
//	watchdog, prober            PubSub.generation starts them and waits for them
//	echo channel (1 slot)       filled by the receiving goroutine, emptied by the
//	                            prober; the slot keeps the former from waiting
//	message counters            written by the receiving goroutine alone
//	probe histogram             prober writes, Stats reads
//	reaper of idle commands     one timer of Commands; no goroutine while it waits
package redis
