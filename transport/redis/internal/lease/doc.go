// Package lease keeps the set of users that are online in Redis: a sorted set, whose scores are the Unix times at which the
// leases of users end. Hubs extend the leases of their users, and any hub removes those that have ended.
//
// Both are scripts, so that a transition is decided and published at the same time, once, whatever the number of hubs: a user is
// published as online when it is added to the set, and as offline when it is removed. All times are those of Redis.
//
// A second key has the time of the last removal. It shows that hubs could not reach Redis for a while: then no user is removed
// before each hub has had the time to extend its leases.
package lease
