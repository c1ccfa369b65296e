package main

import (
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// Constants of usercast. TestDefaultsMatch compares them.
const (
	busyFactor = 5
	spreadStep = 10 * time.Millisecond

	markerInterval = 10 * time.Second // each hub publishes a marker
)

// params are the values of the flags.
type params struct {
	seed               uint64
	hubs, perHub, tabs int

	retry                  time.Duration
	jitterPart             float64
	drainDelay, drain      time.Duration
	gapRate                float64
	gapSpread              time.Duration
	backoffMin, backoffMax time.Duration
	maxClients             int
	historyAge             time.Duration
	feed                   string
	pingInterval           time.Duration
	markers                bool
	reach                  time.Duration

	authCache, authTimeout, appTime time.Duration
	authConcurrency                 int
	authWaitCounts                  bool

	connectCost    time.Duration
	cores, backlog int

	affinity           bool
	checkDown, checkUp time.Duration
	fallbackRetry      time.Duration

	limit                             time.Duration
	rate                              float64
	killed                            int
	restartTime, proxyDown, redisDown time.Duration
	restartPause                      time.Duration
}

// declare adds the flags to fs. Their defaults are those of usercast, if it has the same setting.
func declare(fs *flag.FlagSet) *params {
	p := new(params)
	fs.Uint64Var(&p.seed, "seed", 1, "seed of the random numbers")
	fs.IntVar(&p.hubs, "hubs", 10, "number of hubs")
	fs.IntVar(&p.perHub, "pages", 10_000, "number of pages per hub")
	fs.IntVar(&p.tabs, "tabs", 1, "number of pages per user")
	fs.Float64Var(&p.rate, "rate", 0.05, "messages per second and page")

	fs.DurationVar(&p.retry, "retry", 3*time.Second, "--retry")
	fs.Float64Var(&p.jitterPart, "jitter", 0.5, "maximum jitter, as a fraction of the retry")
	fs.DurationVar(&p.drainDelay, "drain-delay", 5*time.Second, "--drain-delay")
	fs.DurationVar(&p.drain, "drain", 15*time.Second, "--drain")
	fs.Float64Var(&p.gapRate, "gap-rate", 100, "pages per second and hub that receive a gap, unless gap-spread is reached")
	fs.DurationVar(&p.gapSpread, "gap-spread", 3*time.Second, "maximum time over which gaps are spread")
	fs.DurationVar(&p.backoffMin, "backoff-min", 100*time.Millisecond, "first pause between two attempts to connect to Redis")
	fs.DurationVar(&p.backoffMax, "backoff-max", time.Second, "longest pause between two attempts to connect to Redis")
	fs.IntVar(&p.maxClients, "max-clients", 0, "--max-clients; 0 means no limit")
	fs.DurationVar(&p.historyAge, "history-age", 2*time.Minute, "--history-age")
	fs.StringVar(&p.feed, "feed", "pubsub", "--feed")
	fs.DurationVar(&p.pingInterval, "ping-interval", 15*time.Second, "--ping-interval")
	fs.BoolVar(&p.markers, "markers", true, "any hub can resume any stream; off with several --redis")
	fs.DurationVar(&p.reach, "reach", 27*time.Second, "how far back the history reaches for pages of other hubs: usercast_history_seconds{scope=\"elsewhere\"}; the default is that of 5,000 messages per second of 200 bytes")

	fs.DurationVar(&p.authCache, "auth-cache", 10*time.Second, "--auth-cache")
	fs.DurationVar(&p.authTimeout, "auth-timeout", 2*time.Second, "--auth-timeout")
	fs.IntVar(&p.authConcurrency, "auth-concurrency", 32, "--auth-concurrency")
	fs.BoolVar(&p.authWaitCounts, "auth-wait-counts", false, "start auth-timeout when a session check is queued, not when it is sent")
	fs.DurationVar(&p.appTime, "app-time", 10*time.Millisecond, "response time of a session check")

	fs.DurationVar(&p.connectCost, "connect-cost", 100*time.Microsecond, "CPU time of a hub per connect")
	fs.IntVar(&p.cores, "cores", 2, "number of CPU cores per hub")
	fs.IntVar(&p.backlog, "backlog", 4096, "net.core.somaxconn")

	fs.BoolVar(&p.affinity, "affinity", false, "the load balancer sends a page to its previous hub")
	fs.DurationVar(&p.checkDown, "check-down", 1200*time.Millisecond, "time until the load balancer detects that a hub is not ready; 0 disables health checks")
	fs.DurationVar(&p.checkUp, "check-up", 5*time.Second, "time until the load balancer sends pages to a hub that is ready")
	fs.DurationVar(&p.fallbackRetry, "away-retry", 3*time.Second, "retry in the fallback response of the load balancer when all hubs are down; 0 refuses the connection instead")

	fs.DurationVar(&p.limit, "limit", 10*time.Minute, "maximum simulated time")
	fs.IntVar(&p.killed, "killed", 0, "number of hubs that kill -9 ends; 0 means all")
	fs.DurationVar(&p.restartTime, "restart", time.Second, "time from the start of a hub process until it is subscribed and ready")
	fs.DurationVar(&p.restartPause, "pause", 0, "time from the end of a hub process until the next one is started")
	fs.DurationVar(&p.proxyDown, "balancer-away", time.Second, "time during which the load balancer is down")
	fs.DurationVar(&p.redisDown, "redis-away", 10*time.Second, "duration of the Redis outage")
	return p
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "reconnectsim:", err)
		}
		os.Exit(2)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("reconnectsim", flag.ContinueOnError)
	fs.SetOutput(stderr)
	p := declare(fs)
	only := fs.String("only", "", "run one scenario: deploy, kill, outage or balancer")
	sweep := fs.String("sweep", "", "flag=value,value,…: run once with each value of a flag")
	asCSV := fs.Bool("csv", false, "print one line per tenth of a second instead of the table")
	if err := fs.Parse(args); err != nil {
		return err
	}
	name, list, swept := strings.Cut(*sweep, "=")
	if !swept {
		if name != "" {
			return errors.New("-sweep: must have the form flag=value,value")
		}
		list = "-"
	}
	w := csv.NewWriter(stdout)
	defer w.Flush()
	if *asCSV {
		w.Write([]string{"scenario", name, "seconds", "connects_busiest_hub", "session_checks", "refetches"})
	} else {
		printHead(stdout, name)
	}
	known := false
	for _, sc := range scenarios {
		if *only != "" && *only != sc.name {
			continue
		}
		known = true
		for value := range strings.SplitSeq(list, ",") {
			if swept {
				if err := fs.Set(name, value); err != nil {
					return fmt.Errorf("-sweep: %w", err)
				}
			}
			if p.hubs < 1 || p.perHub < 1 || p.tabs < 1 || p.cores < 1 || p.authConcurrency < 1 || p.gapRate <= 0 || p.backoffMin <= 0 || p.killed > p.hubs {
				return errors.New("a flag has a value that is too small or too large")
			}
			s := simulate(*p, sc.happen)
			if *asCSV {
				writeSeries(w, sc.name, value, s)
			} else {
				printRow(stdout, sc.title, value, s)
			}
		}
	}
	if !known {
		return fmt.Errorf("-only: %q is not a scenario", *only)
	}
	return nil
}

func printHead(w io.Writer, swept string) {
	if swept == "" {
		swept = " "
	}
	fmt.Fprintf(w, "| scenario | %s | connects/s, busiest hub | app: session checks/s | app: refetches/s | disconnected at most | recovered: p50 | p99 | all | never | busy | refused | SYNs dropped | replayed | lost, announced | duration |\n", swept)
	fmt.Fprintf(w, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
}

func printRow(w io.Writer, title, value string, s *sim) {
	if value == "-" {
		value = " "
	}
	fmt.Fprintf(w, "| %s | %s | %d | %d | %d | %.1f %% | %.1f s | %.1f s | %.1f s | %d | %d | %d | %d | %.0f | %.0f | %.0f s |\n",
		title, value, s.peakConnects(), s.checks.peak(), s.refetches.peak(), 100*float64(s.maxDisconnected)/float64(len(s.pages)),
		quantile(s.recovered, .5).Seconds(), quantile(s.recovered, .99).Seconds(), quantile(s.recovered, 1).Seconds(), s.disconnected,
		s.busy, s.refused, s.dropped, s.replayed, s.lost, max(s.took, s.now).Seconds())
}

func writeSeries(w *csv.Writer, scenario, value string, s *sim) {
	busiest := s.hubs[0]
	for _, h := range s.hubs {
		if h.connects.peak() > busiest.connects.peak() {
			busiest = h
		}
	}
	at := func(s series, i int) string {
		if i < len(s) {
			return strconv.Itoa(s[i])
		}
		return "0"
	}
	for i := range total(busiest.connects, s.checks, s.refetches) {
		w.Write([]string{scenario, value, strconv.FormatFloat(time.Duration(i*int(bin)).Seconds(), 'f', 1, 64), at(busiest.connects, i), at(s.checks, i), at(s.refetches, i)})
	}
}
