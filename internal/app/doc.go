// Package app runs a hub: from the flags of serve to listeners, feeds and streams, and to their end.
//
// New builds an App from a checked Config and opens its listeners. Run serves until its context is done, drains, and returns
// when no goroutine, connection or listener of the app is left. Serve does both for a process, which also reloads files on SIGHUP.
//
//	| owned by   | what                                                                     |
//	|------------|--------------------------------------------------------------------------|
//	| App.Run    | one goroutine per feed, per listener, for memory and the service manager |
//	| App        | the listeners, from New to the end of Run                                |
//	| Serve      | the goroutine of the reloader                                            |
//	| certificate | the files of --tls-cert and --tls-key; each handshake checks them       |
package app
