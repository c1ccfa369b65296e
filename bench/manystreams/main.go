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

// million is what all runs have in common.
type million struct {
	perHub         int           // streams of one hub, at most
	ramp           float64       // streams opened a second, at all hubs together
	rate           float64       // messages a second, to all users together
	idle, duration time.Duration // between connecting and publishing; of publishing
	dir            string        // for programs and logs; removed in the end
	program        string        // usercast
	address        func() string // the next one that is free
}

func main() {
	log.SetFlags(0)
	var m million
	totals := flag.String("streams", "1000,2000,5000,10000,18000,50000,100000", "totals to measure")
	flag.IntVar(&m.perHub, "per-hub", 18000, "streams of one hub at most: it and its usercast bench need a descriptor for each")
	flag.Float64Var(&m.ramp, "ramp", 3000, "streams opened a second, at all hubs together")
	flag.Float64Var(&m.rate, "rate", 2000, "messages a second, to users at random")
	flag.DurationVar(&m.idle, "idle", 15*time.Second, "how long streams are only pinged, before memory is read: the interval of pings at the least")
	flag.DurationVar(&m.duration, "duration", 10*time.Second, "how long each run publishes")
	port := flag.Int("port", 7900, "first of the ports of 127.0.0.1, three and two for each hub")
	flag.StringVar(&m.program, "usercast", "", "measure this usercast instead of building one")
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
			log.Fatalf("--streams: %q is no number of streams", text)
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

// run measures each total, and writes what there is after each. Reset is called
// before each: the addresses are free again.
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
