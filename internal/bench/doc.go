// Package bench implements the command bench: its flags, the connection to Redis, and the text report. Package load
// generates the load.
package bench
