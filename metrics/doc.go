// Package metrics exports the statistics of the other packages to Prometheus. It counts nothing itself: a
// Collector reads the Stats at each scrape, so counting costs the hot paths only an atomic addition.
//
// Every label value is exported from the start, with 0. Labels never contain a user, a topic or a token, because
// their number is unbounded.
package metrics
