// Package flags reads and checks the values of command-line flags, for all commands alike: types of values that keep
// their parse error, a collector of errors, so that everything that is wrong is reported at once, and the file of --env-file.
package flags
