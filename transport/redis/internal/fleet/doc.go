// Package fleet is the protocol between the hubs of one Redis. With it, every hub can resume every stream, and a hub
// learns that it has missed messages although its connection stayed open.
//
// Each hub publishes markers on the control channel. Redis delivers all messages to all of its subscribers in one
// order, so "the nth message after this marker" is the same message at every hub. The hub counts places (package hub);
// this package decides which markers count, and compares what hubs have counted:
//
//   - A marker lists the markers that its publisher received within the last 35 s: how many messages it had counted
//     before each one since its generation began, and a checksum of them.
//   - A hub that counted fewer messages between two of these than the publisher, or as many with another checksum, has
//     missed some. It publishes a marker that says after which one, and announces the gap missed to its own clients at
//     the next marker. It never corrects a count: ids that count from a later marker are right by themselves.
//   - The other hubs then doubt ids from before that announcement, because an id does not contain its hub.
//
// A generation is one subscription of a hub. Nothing is compared across generations.
//
// The package does no I/O, starts no goroutine and reads no clock: package redis passes what it received, and when. It
// does not protect against a publisher that forges markers, except for its own memory: such a publisher could also
// disconnect users. A forged marker can cause gaps, but not hide one.
package fleet
