// Command compare measures usercast, lowerbound and baseline, and prints how they compare.
//
// It builds all three programs and starts a separate Redis server. usercast bench opens streams and publishes. A round
// runs each scenario with each hub, each time in a new process. The order of the hubs changes from round to round, because
// the speed of a host drifts. compare prints medians and ranges over the rounds, and writes all results to a file.
//
// tables.go defines what is compared and under which names usercast bench reports it. process.go starts hubs and load;
// print.go prints.
package main
