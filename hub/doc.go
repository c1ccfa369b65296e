// Package hub routes each message to the bounded queues of connected clients: those of
// one user, of the members of one group, or all. It does not depend on Redis, HTTP or
// Prometheus.
//
// A PubSub numbers messages itself and keeps the newest ones of each user and group. Its ids count from
// markers, points of the sequence that all hubs of a fleet receive, so that a client can resume at
// any of them. A StreamFeed receives numbered entries from a log, such as a Redis stream, and keeps
// a window of them. Both embed a Hub, which has the clients and one sequence. A client represents
// one stream in the hub: its queue, its position in the sequence, and the reason for its end.
//
// # What it guarantees
//
//   - Publish never waits for a client and does no I/O. It encodes a message at
//     most once per variant (with and without the topic in the event's name). If
//     no client receives the message, it is not encoded.
//   - Messages, broadcasts and gaps share one sequence. A client receives its
//     entries in the order of that sequence: those for its user, its groups and all.
//   - The groups of a client are fixed when it registers. Groups and users share no
//     names: a group "*" is a group like any other.
//   - A client that reconnects with an id receives what it missed: all later entries
//     that concern it, or a gap and those of them that the history still has.
//   - A client that stays open has received every entry that concerns it, or a gap:
//     if its queue overflows, the client ends (ReasonSlow).
//   - All frames are counted: enqueued = delivered + discarded + queued.
//
// # What it does not guarantee
//
// A PubSub keeps the messages of users and groups without a client in a ring of a fixed number of bytes, not for
// a time. A replay does not contain messages of groups that the user has left. The hub does no I/O: the program that registers a client consumes its queue.
//
// # Invariants
//
// The names of tests contain these numbers. The tests of 7 and 13, and those that need a
// connection, are in transport/sse.
//
//	 1  Publish never waits for a client. No lock is held during I/O, and logging is I/O.
//	 2  A client's queue has one consumer. Frames reach the socket in the order of Publish.
//	 3  A frame is encoded at most once per variant, for a user, a group or all, and never changes.
//	 4  A full queue ends the client. A stream that stays open has every entry or a gap.
//	 5  After a client has ended, nothing is enqueued for it. The connection closes within the
//	    write timeout.
//	 6  Messages to users, to groups and to all, and gaps, share one sequence. Each subscription generation, also the
//	    first, is an entry in it, before the first message of the generation. A gap that only this
//	    hub has does not count as a message.
//	 7  Every open stream writes something within the ping interval. A write that takes longer
//	    than the write timeout ends it. Deadlines do not depend on a writer being free.
//	 8  A user whose last stream ended longer ago than the age of the history occupies memory only
//	    in the ring, and so does a group whose last member left. A message for either does not
//	    allocate. A client without groups does not need memory for them.
//	 9  Conservation: enqueued = delivered + discarded + queued.
//	10  Drain waits for the hub's own count of clients.
//	11  No goroutine outlives Close.
//	12  A client resumes without loss or duplicates: it is registered first, then everything
//	    older than the registration is replayed, for its user, for all of its groups and for all.
//	13  Streams behave the same, whichever kind of connection they use.
//	14  All buffers are bounded in bytes, not only in numbers of entries.
//	15  An id is not written to a stream before all messages and gaps up to that id. The opening
//	    block contains the id that the client sent.
//
// # Owners and locks
//
// Each type is in a separate file: queue in queue.go, nudges in spread.go. The methods of Client
// that its consumer calls are in client_take.go.
//
//	clients, routing     Hub, under Hub.mu
//	users and groups     owners, under Hub.mu; a client has its memberships
//	sequence, markers,   their types, under Hub.mu
//	waiting, doubts,
//	broadcasts, budget,
//	arrivals
//	history              userHistory of a PubSub, with its ring, or window of a StreamFeed, under
//	                     Hub.mu; chosen by the constructor
//	replay               under Hub.mu; each Take of the client's consumer does one step. It is
//	                     abandoned if its client has ended and only the log has the rest, or if
//	                     the place of its id is not known
//	queue                under Client.mu; it has one consumer
//	list of a tap        under Tap.mu
//	frames               immutable, shared by all receivers
//	goroutine            one, which enqueues broadcasts, gaps for all clients and entries for large
//	                     groups in parts. It runs while any are pending, only if more than
//	                     Config.FanOut clients receive them
//	timers               one spreads a gap, one drops old entries, one per queue that exceeds
//	                     its bounds
//
// Locks are taken in the order Hub.mu, nudges.mu, Client.mu; or Hub.mu, Tap.mu. None is held
// during I/O. Work that grows with the number of clients or users is done in parts, with Hub.mu
// released between them. The exceptions are Reset, Load, Close, the search for the fullest
// queues, and copies of the lists of clients and of a part of the users.
package hub
