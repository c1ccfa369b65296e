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

// A comparison has the configuration of all runs.
type comparison struct {
	rounds, streams int
	writers         int // writer goroutines of the lowerbound
	duration        time.Duration
	scenarios       []scenario
	dir             string            // for programs and logs; removed at the end
	programs        map[string]string // paths by name
	redis           string            // addresses
	listen, admin   string
}

// A result is the result of one run.
type result struct {
	Round    int             `json:"round"`
	Scenario string          `json:"scenario"`
	Hub      string          `json:"hub"`
	Report   json.RawMessage `json:"report"` // of usercast bench
}

func main() {
	log.SetFlags(0)
	v := comparison{programs: make(map[string]string)}
	flag.IntVar(&v.rounds, "rounds", 3, "number of runs of each scenario with each hub")
	flag.IntVar(&v.streams, "streams", 5000, "number of open streams")
	flag.DurationVar(&v.duration, "duration", 8*time.Second, "duration of publishing in each run")
	flag.IntVar(&v.writers, "writers", 0, "writer goroutines of the lowerbound; with 0, the goroutine that reads from Redis writes")
	only := flag.String("only", "", "run only scenarios whose name contains this text, e.g. broadcast")
	port := flag.Int("port", 7730, "first of three ports on 127.0.0.1: Redis, streams, admin")
	oursAt := flag.String("usercast", "", "program to measure instead of a new build of usercast")
	loadAt := flag.String("load", "", "program that generates the load instead of the measured usercast")
	out := flag.String("out", filepath.Join("bench", "results", "compare.json"), "file for the unchanged results")
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
		// Results are written after each round, so that they are not lost if a later round fails.
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

// turn rotates a list.
func turn(list []hub, by int) []hub {
	by %= len(list)
	return slices.Concat(list[by:], list[:by])
}

// build builds the programs that are not configured.
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

// measure performs one run with a new hub process.
func (v *comparison) measure(ctx context.Context, h hub, s scenario) (report []byte, err error) {
	p, err := v.startHub(ctx, h, s.ping)
	if err != nil {
		return nil, err
	}
	defer p.Stop()
	if report, err = v.load(ctx, s); err != nil {
		return nil, fmt.Errorf("%w\noutput of %s:\n%s", err, h.name, p.Output())
	}
	return report, nil
}
