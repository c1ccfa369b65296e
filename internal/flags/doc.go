// Package flags parses and validates the values of command-line flags. It has types for values that keep their parse
// error, a collector that reports all errors at once, and a reader for the file of --env-file.
package flags
