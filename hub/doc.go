// Package hub routes each message to the buffered queues of one user's
// connected clients. It knows no Redis, no HTTP and no Prometheus.
//
// # What it promises
//
//   - Publish never waits for a client and does no I/O. It encodes a message at
//     most once per variant, and not at all when nobody listens.
//   - Messages, broadcasts and gaps share one sequence. A client gets its entries
//     in the order of that sequence.
//   - A client that comes back with an id gets what it missed: all that concerns
//     it since, or a gap and what is still there.
//   - A client that stays open has skipped nothing unannounced: a queue that
//     overflows ends its client (ReasonSlow).
//   - Everything is counted: frames enqueued = delivered + discarded + queued.
//
// # What it does not
//
// It keeps nothing for users who are not here and were not within the history's
// age, unless a log brings the entries. It does not know what a stream is; whoever
// registers a client consumes its queue.
//
// # Invariants
//
// Tests bear their numbers, here and, where a connection is part of them, in
// transport/sse.
//
//	 1  Publish never waits for a client; no lock is held during I/O.
//	 2  A queue has one consumer; frames reach the socket in the order of Publish.
//	 3  A frame is encoded at most once per variant and never changed.
//	 4  A full queue ends the client; an open stream has skipped nothing unannounced.
//	 5  After the end nothing is enqueued; the connection closes within the write timeout.
//	 6  One sequence for messages, broadcasts and gaps; a position is written only
//	    while nothing is queued, and is read in the order of Publish.
//	 7  A stream writes something within the ping interval.
//	 8  A user without a stream, and past the history's age, occupies no memory.
//	 9  Frames enqueued = delivered + discarded + queued.
//	10  A drain waits for the hub's own count, not for the server's.
//	11  No goroutine outlives the process's run.
//	12  Resume hands over without loss or double: register first, then replay what
//	    is older than the registration point.
//
// # Who owns what
//
//	sequence, users, clients   Hub, under Hub.mu
//	history, replays           Hub, under Hub.mu; a replay is read by its consumer, and
//	                           given up when its client ends while only the log has the rest
//	queue of a client          Client, under Client.mu; one consumer takes from it
//	frames                     immutable once made, shared by all receivers
//	broadcasts under way,      Hub, under Hub.mu: a goroutine hands them out in parts,
//	gaps for all included      and is there while there are some
//	timers                     one for a gap's spreading and one for the history's sweep;
//	                           a queue that is over its bounds has one
//
// Locks are taken in the order Hub.mu, spread.mu, Client.mu. None is held during I/O, and
// what grows with the number of clients or users is done in parts, with Hub.mu free between
// them, except for Reset, Load, Close and the search for the fullest queues.
package hub
