// Command versus measures usercast beside the floor and beside plain, and prints
// how they compare.
//
// It builds all three, starts a Redis of its own, and lets usercast bench open
// streams and publish. A round is each scenario with each hub, every time in a fresh
// process; who begins changes from round to round, because the speed of a machine
// drifts. What is printed are medians and ranges over the rounds. The results as
// they came go into a file.
//
// Tables are in tables.go: what is compared, how, and by which names usercast bench
// reports it. How hubs and load are started is in process.go, the printing in print.go.
package main
