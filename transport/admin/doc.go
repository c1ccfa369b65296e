// Package admin answers operators: health on both listeners, and on the admin
// listener metrics, profiles, /api, and the console at /.
//
// /metrics and health are open to whoever reaches the listener. Everything else
// goes through a Guard: with a token, whoever has it; without one, this machine
// only. The console's page alone is shown to whoever lacks the token, to ask for it:
// it holds nothing of the hub's.
package admin
