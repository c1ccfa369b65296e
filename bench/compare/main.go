package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"usercast/bench/internal/process"
)

// loader is the program that opens streams and publishes.
const loader = "usercast bench"

// A comparison is what all runs have in common.
type comparison struct {
	rounds, streams int
	writers         int // of the lowerbound
	duration        time.Duration
	scenarios       []scenario
	dir             string            // for programs and logs; removed in the end
	programs        map[string]string // by name
	redis           string            // addresses
	listen, admin   string
}

// A result is one run.
type result struct {
	Round    int             `json:"round"`
	Scenario string          `json:"scenario"`
	Hub      string          `json:"hub"`
	Report   json.RawMessage `json:"report"` // of usercast bench
}

func main() {
	log.SetFlags(0)
	v := comparison{programs: make(map[string]string)}
	flag.IntVar(&v.rounds, "rounds", 3, "how often each scenario is measured with each hub")
	flag.IntVar(&v.streams, "streams", 5000, "streams that are open")
	flag.DurationVar(&v.duration, "duration", 8*time.Second, "how long each run publishes")
	flag.IntVar(&v.writers, "writers", 0, "goroutines that write in the lowerbound; 0: the one that reads Redis")
	only := flag.String("only", "", "measure only scenarios whose name holds this, e.g. broadcast")
	port := flag.Int("port", 7730, "first of three ports of 127.0.0.1: Redis, streams, admin")
	oursAt := flag.String("usercast", "", "measure this usercast instead of building one")
	loadAt := flag.String("load", "", "measure with this usercast's bench instead of the built one's")
	out := flag.String("out", filepath.Join("bench", "results", "compare.json"), "file for the results as they came")
	flag.Parse()
	for _, s := range scenarios {
		if strings.Contains(s.name, *only) {
			v.scenarios = append(v.scenarios, s)
		}
	}
	if flag.NArg() > 0 || v.rounds < 1 || v.streams < 1 || len(v.scenarios) == 0 {
		flag.Usage()
		os.Exit(2)
	}
	for i, address := range []*string{&v.redis, &v.listen, &v.admin} {
		*address = net.JoinHostPort("127.0.0.1", strconv.Itoa(*port+i))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := v.run(ctx, *oursAt, *loadAt, *out); err != nil {
		log.Fatal(err)
	}
}

func (v *comparison) run(ctx context.Context, oursAt, loadAt, out string) (err error) {
	if v.dir, err = os.MkdirTemp("", "compare"); err != nil {
		return err
	}
	defer os.RemoveAll(v.dir)
	if err := v.build(ctx, oursAt, loadAt); err != nil {
		return err
	}
	redis, err := process.StartRedis(ctx, v.dir, v.redis)
	if err != nil {
		return err
	}
	defer redis.Stop()

	var results []result
	for round := range v.rounds {
		for _, s := range v.scenarios {
			for _, h := range turn(hubs, round) {
				log.Printf("round %d of %d: %s, %s", round+1, v.rounds, s.name, h.name)
				report, err := v.measure(ctx, h, s)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.name, h.name, err)
				}
				results = append(results, result{round + 1, s.name, h.name, report})
			}
		}
		// After each round: what was measured is kept if a later one fails.
		text, err := json.MarshalIndent(results, "", "  ")
		if err != nil {
			return fmt.Errorf("usercast bench did not print JSON: %w", err)
		}
		if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return v.print(os.Stdout, results)
}

// turn begins a list at another place each time.
func turn(list []hub, by int) []hub {
	by %= len(list)
	return slices.Concat(list[by:], list[:by])
}

// build makes the programs that are not given.
func (v *comparison) build(ctx context.Context, oursAt, loadAt string) error {
	for _, h := range hubs {
		if h.name == ours && oursAt != "" {
			v.programs[ours] = oursAt
			continue
		}
		program := filepath.Join(v.dir, h.name)
		if err := process.Build(ctx, program, h.pkg); err != nil {
			return err
		}
		v.programs[h.name] = program
	}
	v.programs[loader] = v.programs[ours]
	if loadAt != "" {
		v.programs[loader] = loadAt
	}
	return nil
}

// measure is one run, of a fresh hub.
func (v *comparison) measure(ctx context.Context, h hub, s scenario) (report []byte, err error) {
	p, err := v.startHub(ctx, h, s.ping)
	if err != nil {
		return nil, err
	}
	defer p.Stop()
	if report, err = v.load(ctx, s); err != nil {
		return nil, fmt.Errorf("%w\n%s said:\n%s", err, h.name, p.Said())
	}
	return report, nil
}
