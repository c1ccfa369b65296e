// Package bench is the command bench: its flags, the connection to Redis, and the report for people. The engine is
// package load.
package bench
