// Package metrics shows the Stats of the other packages to Prometheus. Nothing
// is counted here: a Collector reads the Stats at each scrape, so counting costs
// the hot paths an atomic addition and no more.
//
// Every label value is present from the start at 0. No label ever carries a
// user, a topic or a token: their number has no bound.
package metrics
