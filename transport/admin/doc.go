// Package admin serves operators: health on both listeners, and on the admin listener metrics, profiles, /api, and
// the console at /.
//
// Any client that reaches the listener can read /metrics and health. Everything else is behind a Guard: with a token,
// requests need it; without one, only requests from this machine are accepted. The only exception is the console's page:
// it is served to clients without the token, because it asks for the token. It does not contain data of the hub.
package admin
