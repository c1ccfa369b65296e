// Package app runs a hub. It creates listeners, feeds and streams from the flags of serve, and shuts them down.
//
// New creates an App from a validated Config and opens its listeners. Run serves until its context is done, then drains. It
// returns when no goroutine, connection or listener of the app is left. Serve calls both for a process, and reloads files
// on SIGHUP.
//
//	owner        goroutines, listeners and files
//	App.Run      a goroutine per feed and per listener, one for memory, one for the service manager
//	App          the listeners, from New to the end of Run
//	Serve        the goroutine that reloads files
//	certificate  the files of --tls-cert and --tls-key; each handshake checks whether they have changed
package app
