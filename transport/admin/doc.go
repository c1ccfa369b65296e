// Package admin answers operators: health on both listeners, and on the admin
// listener metrics, profiles and /api/users.
//
// /metrics and health are open to whoever reaches the listener. Everything else
// goes through a Guard: with a token, whoever has it; without one, this machine
// only.
package admin
