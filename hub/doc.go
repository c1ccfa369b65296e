// Package hub routes each message to the buffered queues of one user's
// connected clients. It knows no Redis, no HTTP and no Prometheus.
//
// # What it promises
//
//   - Publish never waits for a client and does no I/O. It encodes a message at
//     most once per variant, and not at all when nobody listens.
//   - Messages, broadcasts and gaps share one sequence. A client gets its entries
//     in the order of that sequence.
//   - A client that stays open has skipped nothing unannounced: a queue that
//     overflows ends its client (ErrSlow).
//   - Everything is counted: frames enqueued = delivered + discarded + queued.
//
// # What it does not
//
// It keeps no message for later: a client that comes back with an old id is
// told of a gap. It does not know what a stream is; whoever registers a client
// consumes its queue.
//
// # Who owns what
//
//	sequence, users, clients   Hub, under Hub.mu
//	queue of a client          Client, under Client.mu; one consumer takes from it
//	frames                     immutable once made, shared by all receivers
//	goroutines                 none; a gap's spreading runs on one timer, and a queue
//	                           that is over its bounds has one
//
// Locks are taken in the order Hub.mu, spread.mu, Client.mu. None is held during I/O.
package hub
