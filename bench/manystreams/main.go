package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"usercast/bench/internal/process"
)

// million has the configuration of all runs.
type million struct {
	perHub         int           // maximum number of streams per hub
	ramp           float64       // streams opened per second, at all hubs together
	rate           float64       // messages per second, to all users together
	idle, duration time.Duration // idle time before publishing; time of publishing
	dir            string        // for programs and logs; removed at the end
	program        string        // path of usercast
	address        func() string // returns the next free address
}

func main() {
	log.SetFlags(0)
	var m million
	totals := flag.String("streams", "1000,2000,5000,10000,18000,50000,100000", "numbers of streams to measure")
	flag.IntVar(&m.perHub, "per-hub", 18000, "maximum number of streams per hub; the hub and its usercast bench need a file descriptor for each")
	flag.Float64Var(&m.ramp, "ramp", 3000, "streams opened per second, at all hubs together")
	flag.Float64Var(&m.rate, "rate", 2000, "messages per second, to random users")
	flag.DurationVar(&m.idle, "idle", 15*time.Second, "time without messages before memory is read; at least the interval of pings")
	flag.DurationVar(&m.duration, "duration", 10*time.Second, "duration of publishing in each run")
	port := flag.Int("port", 7900, "first port on 127.0.0.1; three ports plus two per hub are used")
	flag.StringVar(&m.program, "usercast", "", "program to measure instead of a new build of usercast")
	out := flag.String("out", filepath.Join("bench", "results", "streams.csv"), "file for the rows")
	flag.Parse()
	next := *port
	m.address = func() string {
		next++
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(next-1))
	}
	var list []int
	for text := range strings.SplitSeq(*totals, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			log.Fatalf("--streams: %q is not a number of streams", text)
		}
		list = append(list, n)
	}
	if flag.NArg() > 0 || m.perHub < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := m.run(ctx, list, *out, func() { next = *port })
	if err != nil {
		log.Fatal(err)
	}
}

// run measures each total, and writes the results so far after each of them. It calls reset before each total, because the
// addresses are free again.
func (m *million) run(ctx context.Context, totals []int, out string, reset func()) (err error) {
	if m.dir, err = os.MkdirTemp("", "manystreams"); err != nil {
		return err
	}
	defer os.RemoveAll(m.dir)
	if m.program == "" {
		m.program = filepath.Join(m.dir, "usercast")
		if err := process.Build(ctx, m.program, "usercast/cmd/usercast"); err != nil {
			return err
		}
	}
	var rows []row
	var faults []error
	for _, total := range totals {
		reset()
		r, err := m.measure(ctx, total)
		if err != nil {
			return fmt.Errorf("%d streams: %w", total, err)
		}
		rows = append(rows, r)
		log.Print(r)
		for _, fault := range r.faults {
			faults = append(faults, fmt.Errorf("%d streams: %s", total, fault))
		}
		if err := writeCSV(out, rows); err != nil {
			return err
		}
	}
	return errors.Join(faults...)
}
