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

// What the product and docs/reverse-proxies.md fix. TestDefaultsAreTheProducts compares.
const (
	busyFactor = 5
	spreadStep = 10 * time.Millisecond
)

// params are the flags.
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

	authCache, authTimeout, appTime time.Duration
	authAtOnce                      int
	authWaitCounts                  bool

	connectCost    time.Duration
	cores, backlog int

	affinity           bool
	checkDown, checkUp time.Duration
	awayRetry          time.Duration

	limit                             time.Duration
	rate                              float64
	killed                            int
	restartTime, proxyAway, redisAway time.Duration
}

// declare puts the flags into fs; the defaults are the product's where it has any.
func declare(fs *flag.FlagSet) *params {
	p := new(params)
	fs.Uint64Var(&p.seed, "seed", 1, "of chance")
	fs.IntVar(&p.hubs, "hubs", 10, "of the fleet")
	fs.IntVar(&p.perHub, "pages", 10_000, "open on each hub")
	fs.IntVar(&p.tabs, "tabs", 1, "pages of each user")
	fs.Float64Var(&p.rate, "rate", 0.05, "messages a second for each page")

	fs.DurationVar(&p.retry, "retry", 3*time.Second, "--retry")
	fs.Float64Var(&p.jitterPart, "jitter", 0.5, "part of a retry by which it is longer or shorter at most")
	fs.DurationVar(&p.drainDelay, "drain-delay", 5*time.Second, "--drain-delay")
	fs.DurationVar(&p.drain, "drain", 15*time.Second, "--drain")
	fs.Float64Var(&p.gapRate, "gap-rate", 100, "pages a second that hear of a gap, on each hub, until gap-spread is reached")
	fs.DurationVar(&p.gapSpread, "gap-spread", 3*time.Second, "longest time over which a gap is spread")
	fs.DurationVar(&p.backoffMin, "backoff-min", 100*time.Millisecond, "first pause between two attempts to reach Redis")
	fs.DurationVar(&p.backoffMax, "backoff-max", time.Second, "longest one")
	fs.IntVar(&p.maxClients, "max-clients", 0, "--max-clients; 0: no limit")
	fs.DurationVar(&p.historyAge, "history-age", 2*time.Minute, "--history-age")
	fs.StringVar(&p.feed, "feed", "pubsub", "--feed")

	fs.DurationVar(&p.authCache, "auth-cache", 10*time.Second, "--auth-cache")
	fs.DurationVar(&p.authTimeout, "auth-timeout", 2*time.Second, "--auth-timeout")
	fs.IntVar(&p.authAtOnce, "auth-concurrency", 32, "--auth-concurrency")
	fs.BoolVar(&p.authWaitCounts, "auth-wait-counts", false, "the auth timeout begins when a question begins to wait for one of the auth-concurrency places, not when it has one")
	fs.DurationVar(&p.appTime, "app-time", 10*time.Millisecond, "in which the app answers who is asking")

	fs.DurationVar(&p.connectCost, "connect-cost", 100*time.Microsecond, "CPU of a hub for each connect")
	fs.IntVar(&p.cores, "cores", 2, "of each hub")
	fs.IntVar(&p.backlog, "backlog", 4096, "net.core.somaxconn")

	fs.BoolVar(&p.affinity, "affinity", true, "the balancer sends a page to the hub that it had")
	fs.DurationVar(&p.checkDown, "check-down", 1200*time.Millisecond, "until the balancer leaves out a hub that is not ready; 0: no checks")
	fs.DurationVar(&p.checkUp, "check-up", 2*time.Second, "until it takes one in again")
	fs.DurationVar(&p.awayRetry, "away-retry", 3*time.Second, "retry in the balancer's answer when it has no hub; 0: there is no balancer, and the connection is refused")

	fs.DurationVar(&p.limit, "limit", 10*time.Minute, "of the time that is simulated")
	fs.IntVar(&p.killed, "killed", 0, "how many hubs kill -9 hits; 0: all")
	fs.DurationVar(&p.restartTime, "restart", time.Second, "from the end of a hub's process until the next one listens")
	fs.DurationVar(&p.proxyAway, "balancer-away", time.Second, "from the balancer's end until it listens again")
	fs.DurationVar(&p.redisAway, "redis-away", 10*time.Second, "length of the outage of Redis")
	return p
}

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "storm:", err)
		}
		os.Exit(2)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("reconnectsim", flag.ContinueOnError)
	fs.SetOutput(stderr)
	p := declare(fs)
	only := fs.String("only", "", "one scenario: deploy, kill, outage, balancer")
	sweep := fs.String("sweep", "", "flag=value,value,…: run once with each")
	asCSV := fs.Bool("csv", false, "a line for each tenth of a second instead of the table")
	if err := fs.Parse(args); err != nil {
		return err
	}
	name, list, swept := strings.Cut(*sweep, "=")
	if !swept {
		if name != "" {
			return errors.New("-sweep wants flag=value,value")
		}
		list = "-"
	}
	w := csv.NewWriter(stdout)
	defer w.Flush()
	if *asCSV {
		w.Write([]string{"scenario", name, "seconds", "connects_busiest_hub", "logins", "refetches"})
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
			if p.hubs < 1 || p.perHub < 1 || p.tabs < 1 || p.cores < 1 || p.authAtOnce < 1 || p.gapRate <= 0 || p.backoffMin <= 0 || p.killed > p.hubs {
				return errors.New("a number is too small or too large")
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
		return fmt.Errorf("there is no scenario %q", *only)
	}
	return nil
}

func printHead(w io.Writer, swept string) {
	if swept == "" {
		swept = " "
	}
	fmt.Fprintf(w, "| scenario | %s | connects/s, busiest hub | app: log-ins/s | app: refetches/s | away at once | back or told: p50 | p99 | all | never | busy | turned away | SYNs dropped | replayed | lost, announced | took |\n", swept)
	fmt.Fprintf(w, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
}

func printRow(w io.Writer, title, value string, s *sim) {
	if value == "-" {
		value = " "
	}
	fmt.Fprintf(w, "| %s | %s | %d | %d | %d | %.1f %% | %.1f s | %.1f s | %.1f s | %d | %d | %d | %d | %.0f | %.0f | %.0f s |\n",
		title, value, s.peakConnects(), s.logins.peak(), s.refetches.peak(), 100*float64(s.mostAway)/float64(len(s.pages)),
		quantile(s.back, .5).Seconds(), quantile(s.back, .99).Seconds(), quantile(s.back, 1).Seconds(), s.away,
		s.busy, s.turnedAway, s.dropped, s.replayed, s.lost, max(s.took, s.now).Seconds())
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
	for i := range total(busiest.connects, s.logins, s.refetches) {
		w.Write([]string{scenario, value, strconv.FormatFloat(time.Duration(i*int(bin)).Seconds(), 'f', 1, 64), at(busiest.connects, i), at(s.logins, i), at(s.refetches, i)})
	}
}
