// Package hub routes each message to the bounded queues of one user's connected
// clients. It knows no Redis, no HTTP and no Prometheus.
//
// A PubSub numbers messages itself and keeps the newest ones of each user. A StreamFeed
// receives numbered entries from a log, such as a Redis stream, and keeps a window of them.
// Both embed a Hub, which has the clients and one sequence. A client is the place of one stream
// in the hub: its queue, its position in the sequence, and the reason for its end.
//
// # What it guarantees
//
//   - Publish never waits for a client and does no I/O. It encodes a message at
//     most once per variant (with and without the topic in the event's name), and
//     not at all if no client receives it.
//   - Messages, broadcasts and gaps share one sequence. A client receives its
//     entries in the order of that sequence.
//   - A client that reconnects with an id receives what it missed: all later entries
//     that concern it, or a gap and those of them that the history still has.
//   - A client that stays open has received every entry that concerns it, or a gap:
//     a queue that overflows ends its client (ReasonSlow).
//   - Everything is counted: frames enqueued = delivered + discarded + queued.
//
// # What it does not guarantee
//
// A PubSub keeps nothing for users without a client, once the age of the history has passed
// since their last one. The hub does no I/O: the program that registers a client
// consumes its queue.
//
// # Invariants
//
// Tests have these numbers in their names. Those of 7 and 13, and those that need a
// connection, are in transport/sse.
//
//	 1  Publish never waits for a client. No lock is held during I/O, and logging is I/O.
//	 2  A client's queue has one consumer. Frames reach the socket in the order of Publish.
//	 3  A frame is encoded at most once per variant and never changes.
//	 4  A full queue ends the client. A stream that stays open has every entry or a gap.
//	 5  After the end nothing is enqueued. The connection closes within the write timeout.
//	 6  Messages, broadcasts and gaps share one sequence. Each new generation of the Redis
//	    subscription is an entry in it, before the first message after it.
//	 7  Every open stream writes something within the ping interval. A write that takes longer
//	    than the write timeout ends it. Deadlines do not depend on a writer being free.
//	 8  A user without a stream, and past the age of the history, occupies no memory, and a
//	    message for it costs no allocation.
//	 9  Conservation: enqueued = delivered + discarded + queued.
//	10  Drain waits for the hub's own count of clients.
//	11  No goroutine outlives Close.
//	12  Resume hands over without loss or duplicate: register first, then replay what is
//	    older than the registration.
//	13  Every way in which a connection can become a stream behaves the same.
//	14  What is bounded is bounded in bytes, not only in number.
//	15  No id is written to a stream while a message or gap up to that id is still to come on
//	    it. The opening block carries the id that the client sent.
//
// # Who owns what
//
// Each type is in a file of its own: queue in queue.go, nudges in spread.go. Client has a second
// file, client_take.go, for the methods that its consumer calls.
//
//	clients, routing     Hub, under Hub.mu
//	users, sequence,     their types, under Hub.mu
//	broadcasts, budget
//	history              userHistory of a PubSub or window of a StreamFeed, under Hub.mu; chosen
//	                     once, by the constructor
//	replay               under Hub.mu; each Take of the client's consumer does one step. It is
//	                     abandoned if its client has ended and only the log has the rest
//	queue                under Client.mu; one consumer takes from it
//	list of a tap        under Tap.mu
//	frames               immutable, shared by all receivers
//	goroutine            one hands out broadcasts, and gaps for all, in parts. It runs while
//	                     some are pending, which takes more than Config.FanOut clients
//	timers               one spreads a gap, one drops old entries, one per queue that exceeds
//	                     its bounds
//
// Locks are taken in the order Hub.mu, nudges.mu, Client.mu; or Hub.mu, Tap.mu. None is held
// during I/O. Work that grows with the number of clients or users is done in parts, with Hub.mu
// released between them. The exceptions are Reset, Load, Close, the search for the fullest
// queues, and copies of the list of clients.
package hub
