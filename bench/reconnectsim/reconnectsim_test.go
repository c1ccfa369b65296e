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

// small returns a fleet whose simulation takes milliseconds.
func small(edit func(*params)) params {
	p := declare(flag.NewFlagSet("", flag.PanicOnError))
	p.hubs, p.perHub = 3, 1000
	if edit != nil {
		edit(p)
	}
	return *p
}

func TestEachPageRecoversOnce(t *testing.T) {
	for _, feed := range []string{"pubsub", "stream"} {
		for _, sc := range scenarios {
			s := simulate(small(func(p *params) { p.feed = feed }), sc.happen)
			want := 3000
			switch {
			case sc.name == "outage" && feed == "stream":
				want = 0 // gaps are not needed
			case sc.name == "deploy":
				want = len(s.recovered) // some move twice
			}
			if len(s.recovered) != want || len(s.recovered) < 3000 && want > 0 || s.disconnected != 0 {
				t.Errorf("%s, %s: %d recovered, want %d; %d disconnected", sc.name, feed, len(s.recovered), want, s.disconnected)
			}
			clients, load := 0, 0
			for _, h := range s.hubs {
				clients, load = clients+h.clients, load+h.load
			}
			if clients != 3000 || load != 3000 {
				t.Errorf("%s, %s: %d clients, %d connections at the load balancer", sc.name, feed, clients, load)
			}
			if (s.lost > 0) != (feed == "pubsub" && (sc.name == "kill" || sc.name == "outage")) {
				t.Errorf("%s, %s: %v lost", sc.name, feed, s.lost)
			}
		}
	}
}

// If n pages reconnect at retry ± 50 %, n/retry of them reconnect per second.
func TestPeaksMatchTheFormula(t *testing.T) {
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
	// The last hubs also have the pages of the earlier ones.
	deploy := func(p *params) { p.hubs, p.perHub, p.appTime, p.markers = 10, 3000, 0, false }
	near("deploy", simulate(small(deploy), (*sim).deploy).refetches.peak(), 1.3*3000/15)
}

// A page resumes at a hub that subscribed before the marker of the page's id, as far as the history reaches.
func TestPagesResumeAtAnyHub(t *testing.T) {
	for _, test := range []struct {
		name   string
		happen func(*sim)
		edit   func(*params)
		gaps   bool
	}{
		{"deploy", (*sim).deploy, func(*params) {}, false},
		{"crash of one hub", (*sim).kill, func(p *params) { p.killed = 1 }, false},
		{"crash of all hubs", (*sim).kill, func(*params) {}, true},
		{"deploy, pages return too early", (*sim).deploy, func(p *params) { p.checkUp = time.Second }, true},
		{"deploy with a pause", (*sim).deploy, func(p *params) { p.checkUp, p.restartPause = time.Second, 4*time.Second }, false},
		{"crash, pages return too early", (*sim).kill, func(p *params) { p.killed, p.checkUp = 1, time.Second }, true},
		{"deploy without markers", (*sim).deploy, func(p *params) { p.markers = false }, true},
		{"deploy with a short history", (*sim).deploy, func(p *params) { p.reach = 2 * time.Second }, true},
	} {
		if s := simulate(small(test.edit), test.happen); (s.lost > 0) != test.gaps || (sum(s.refetches) > 0) != test.gaps {
			t.Errorf("%s: %.0f messages lost, %d refetches", test.name, s.lost, sum(s.refetches))
		}
	}
}

func TestConcurrentChecksOfOneUserShareARequest(t *testing.T) {
	s := simulate(small(func(p *params) { p.tabs = 100 }), (*sim).cut)
	if n := total(s.checks); sum(n) > 3*30 {
		t.Errorf("%d session checks of 30 users at 3 hubs", sum(n))
	}
}

// This is why -auth-wait-counts is off: if the timeout includes the time in the queue, all queued checks time out.
func TestTimeoutThatIncludesTheQueueRejectsAll(t *testing.T) {
	slow := func(counts bool) params {
		return small(func(p *params) {
			p.hubs, p.perHub, p.appTime, p.authWaitCounts, p.limit = 1, 3000, 500*time.Millisecond, counts, 3*time.Minute
		})
	}
	if s := simulate(slow(false), (*sim).kill); s.disconnected > 0 {
		t.Errorf("%d pages did not reconnect", s.disconnected)
	}
	if s := simulate(slow(true), (*sim).kill); s.disconnected < 2000 {
		t.Errorf("only %d pages did not reconnect", s.disconnected)
	}
}

// Pages whose session check is in flight when a hub exits reconnect, like all others.
func TestExitDuringSessionChecks(t *testing.T) {
	s := simulate(small(func(p *params) { p.hubs, p.checkDown, p.appTime = 1, 0, time.Second }), (*sim).deploy)
	if s.disconnected > 0 {
		t.Errorf("%d pages did not reconnect", s.disconnected)
	}
}

func TestFullAcceptQueueDropsConnections(t *testing.T) {
	s := simulate(small(func(p *params) { p.backlog, p.connectCost = 10, 20*time.Millisecond }), (*sim).cut)
	if s.dropped == 0 || s.disconnected > 0 {
		t.Errorf("%d SYNs dropped, %d pages disconnected", s.dropped, s.disconnected)
	}
}

func TestFullHubSendsBusy(t *testing.T) {
	s := simulate(small(func(p *params) { p.maxClients, p.affinity = 1000, false }), (*sim).deploy)
	if s.busy == 0 || s.disconnected > 0 {
		t.Errorf("%d received busy, %d disconnected", s.busy, s.disconnected)
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
			t.Errorf("%v: two different outputs, or too short:\n%s\n%s", args, one, other)
		}
		if one == output(append(args, "-seed", "2")...) {
			t.Errorf("%v: the same output with another seed", args)
		}
	}
}

func TestInvalidFlagsAreRejected(t *testing.T) {
	for _, args := range []string{"-only nothing", "-sweep retry", "-sweep retri=1s", "-sweep retry=soon", "-hubs 0", "-killed 11", "-nonsense"} {
		if err := run(strings.Fields(args), io.Discard, io.Discard); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}

// usercast does not export its defaults, so the test reads them from its sources.
func TestDefaultsMatch(t *testing.T) {
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
		{"docs/reverse-proxies.md", `return 200 "retry: (\d+)`, fmt.Sprint(p.fallbackRetry.Milliseconds())},
	} {
		files, err := filepath.Glob("../../" + d.files)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", d.files, err)
		}
		var text []byte
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") { // tests change some
				continue
			}
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
