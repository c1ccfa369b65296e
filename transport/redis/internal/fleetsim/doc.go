// Package fleetsim simulates a fleet of hubs, with one or several Redis servers, the connections between them, a load
// balancer without affinity, and pages that connect to any hub. A run is determined by its seed.
//
// The world (time, Redis, links, processes, pages) and the oracle are in this package. They share no code with the hub:
// internal/archtest checks that. The hub is a Node; the tests of this package implement it with hub.PubSub, the fleet
// package and a stand-in for transport/sse.
//
// # What the oracle checks
//
// From the first id of a page on:
//
//   - Each message for the page is received once and in order, or a gap is received after its publication and before
//     the page's next message.
//   - No message of another user or topic is received. Messages of groups are received if the user was a member at the
//     newest connect; those of a group that it has joined meanwhile from the page's id on.
//   - No gap is received twice.
//   - Each gap is justified: unknown-id, for example, only if the marker of the id is older than the hub's
//     subscription.
//   - The opening block contains the id that the page sent.
//   - Each page is connected and complete at the end.
//
// # What is not simulated
//
// Sockets and the Redis protocol, several links that lose messages at a time, a hub that is killed directly after it
// alone received a message, and Cluster. internal/e2e/fleet runs the program itself, and the tests of transport/redis
// run with real servers.
package fleetsim
