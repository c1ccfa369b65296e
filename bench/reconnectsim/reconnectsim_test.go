package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// small is a fleet that is simulated in a moment.
func small(edit func(*params)) params {
	p := declare(flag.NewFlagSet("", flag.PanicOnError))
	p.hubs, p.perHub = 3, 1000
	if edit != nil {
		edit(p)
	}
	return *p
}

func TestEveryPageIsBackOrToldOnce(t *testing.T) {
	for _, feed := range []string{"pubsub", "stream"} {
		for _, sc := range scenarios {
			s := simulate(small(func(p *params) { p.feed = feed }), sc.happen)
			want := 3000
			switch {
			case sc.name == "outage" && feed == "stream":
				want = 0 // nobody needs to be told
			case sc.name == "deploy":
				want = len(s.back) // some move twice
			}
			if len(s.back) != want || len(s.back) < 3000 && want > 0 || s.away != 0 {
				t.Errorf("%s, %s: %d back or told, want %d; %d away", sc.name, feed, len(s.back), want, s.away)
			}
			clients, load := 0, 0
			for _, h := range s.hubs {
				clients, load = clients+h.clients, load+h.load
			}
			if clients != 3000 || load != 3000 {
				t.Errorf("%s, %s: %d clients, %d connections at the balancer", sc.name, feed, clients, load)
			}
			if (s.lost > 0) != (feed == "pubsub" && sc.name != "balancer") {
				t.Errorf("%s, %s: %v lost", sc.name, feed, s.lost)
			}
		}
	}
}

// A crowd of n that comes back at retry ± 50 % is n/retry a second.
func TestPeaksAreThoseOfTheFormula(t *testing.T) {
	near := func(what string, got int, want float64) {
		t.Helper()
		if math.Abs(float64(got)-want) > .15*want {
			t.Errorf("%s: peak %d, want about %.0f", what, got, want)
		}
	}
	one := func(p *params) { p.hubs, p.perHub, p.rate, p.appTime = 1, 9000, 0, 0 }
	near("connects", simulate(small(one), (*sim).cut).peakConnects(), 9000./3)
	near("refetches", simulate(small(one), (*sim).outage).refetches.peak(), 9000./3)
	few := func(p *params) { one(p); p.perHub = 200 }
	near("refetches of few", simulate(small(few), (*sim).outage).refetches.peak(), 100)
	// The last hubs have the pages of those before them, too.
	deploy := func(p *params) { p.hubs, p.perHub, p.appTime = 10, 3000, 0 }
	near("deploy", simulate(small(deploy), (*sim).deploy).refetches.peak(), 1.15*3000/15)
}

func TestQuestionsAboutOneUserAreAskedOnce(t *testing.T) {
	s := simulate(small(func(p *params) { p.tabs = 100 }), (*sim).cut)
	if n := total(s.logins); sum(n) > 3*30 {
		t.Errorf("%d questions about 30 users at 3 hubs", sum(n))
	}
}

// The reason for -auth-wait-counts being off: a queue whose patience is used up by
// waiting answers nobody.
func TestWaitThatCountsStarvesAll(t *testing.T) {
	slow := func(counts bool) params {
		return small(func(p *params) {
			p.hubs, p.perHub, p.appTime, p.authWaitCounts, p.limit = 1, 3000, 500*time.Millisecond, counts, 3*time.Minute
		})
	}
	if s := simulate(slow(false), (*sim).kill); s.away > 0 {
		t.Errorf("%d pages never came back", s.away)
	}
	if s := simulate(slow(true), (*sim).kill); s.away < 2000 {
		t.Errorf("only %d pages never came back", s.away)
	}
}

func TestFullQueueDropsAndThePageAsksAgain(t *testing.T) {
	s := simulate(small(func(p *params) { p.backlog, p.connectCost = 10, 20*time.Millisecond }), (*sim).cut)
	if s.dropped == 0 || s.away > 0 {
		t.Errorf("%d SYNs dropped, %d pages away", s.dropped, s.away)
	}
}

func TestFullHubSaysBusy(t *testing.T) {
	s := simulate(small(func(p *params) { p.maxClients, p.affinity = 1000, false }), (*sim).deploy)
	if s.busy == 0 || s.away > 0 {
		t.Errorf("%d told busy, %d away", s.busy, s.away)
	}
}

func TestSameSeedSameOutput(t *testing.T) {
	output := func(args ...string) string {
		var out bytes.Buffer
		if err := run(append(args, "-pages", "500", "-hubs", "2"), &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	for _, args := range [][]string{nil, {"-csv"}, {"-only", "kill", "-sweep", "retry=1s,3s"}} {
		one, other := output(args...), output(args...)
		if one != other || strings.Count(one, "\n") < 4 {
			t.Errorf("%v: not the same twice, or too short:\n%s\n%s", args, one, other)
		}
		if one == output(append(args, "-seed", "2")...) {
			t.Errorf("%v: another seed, the same output", args)
		}
	}
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, args := range []string{"-only nothing", "-sweep retry", "-sweep retri=1s", "-sweep retry=soon", "-hubs 0", "-killed 11", "-nonsense"} {
		if err := run(strings.Fields(args), io.Discard, io.Discard); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}

// The product does not export its defaults, so they are read from its sources.
func TestDefaultsAreTheProducts(t *testing.T) {
	p := declare(flag.NewFlagSet("", flag.PanicOnError))
	for _, d := range []struct{ files, pattern, want string }{
		{"internal/app/*.go", `Retry +flags.Duration +.default:"(\S+)"`, p.retry.String()},
		{"internal/app/*.go", `HistoryAge +flags.Duration +.default:"(\S+)"`, strings.TrimSuffix(p.historyAge.String(), "0s")},
		{"internal/app/*.go", `DrainDelay +flags.Duration +.default:"(\S+)"`, p.drainDelay.String()},
		{"internal/app/*.go", `Drain +flags.Duration +.default:"(\S+)"`, p.drain.String()},
		{"internal/app/*.go", `GapSpread = (\S+) \* time.Second`, strings.TrimSuffix(p.gapSpread.String(), "s")},
		{"hub/*.go", `gapRate = (\S+)`, "100"},
		{"hub/*.go", `spreadStep = (\S+) \* time.Millisecond`, strings.TrimSuffix(spreadStep.String(), "ms")},
		{"transport/sse/*.go", `busyFactor = (\S+)`, "5"},
		{"transport/sse/*.go", `return (d/2 \+ rand.N\(d\+1\))`, "d/2 + rand.N(d+1)"},
		{"transport/redis/*.go", `[bB]ackoffMin += (\S+) \* time.Millisecond`, "100"},
		{"transport/redis/*.go", `[bB]ackoffMax += (time.Second)\n`, "time.Second"},
		{"docs/reverse-proxies.md", `return 200 "retry: (\d+)`, fmt.Sprint(p.awayRetry.Milliseconds())},
	} {
		files, err := filepath.Glob("../../" + d.files)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", d.files, err)
		}
		var text []byte
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, content...)
		}
		if m := regexp.MustCompile(d.pattern).FindSubmatch(text); m == nil || string(m[1]) != d.want {
			t.Errorf("%s: %s is %q, the simulation has %q", d.files, d.pattern, m, d.want)
		}
	}
}

func sum(s series) (n int) {
	for _, k := range s {
		n += k
	}
	return n
}
