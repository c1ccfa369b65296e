package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"usercast/internal/certtest"
	"usercast/internal/hubtest"
	"usercast/internal/load"
	"usercast/internal/redistest"
)

// runBench runs bench against a hub. Later flags take precedence.
func runBench(h *hubtest.Hub, server *redistest.Server, flags ...string) (code int, stdout, stderr string) {
	args := append([]string{"bench", "--url", h.PublicURL("/events"), "--admin", h.AdminURL(""), "--redis", server.URL()}, flags...)
	return runCommand("", args...)
}

// mustRunBench requires a run without failures and returns its report.
func mustRunBench(t *testing.T, h *hubtest.Hub, server *redistest.Server, flags ...string) load.Report {
	t.Helper()
	code, stdout, stderr := runBench(h, server, append(flags, "--json")...)
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d\n%s%s", code, stderr, stdout)
	}
	var r load.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	return r
}

func TestBenchCountsLikeTheHub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--max-clients-per-user", "0")
	for name, c := range map[string]struct {
		flags      []string
		messages   int64
		deliveries int64
		long       bool
	}{
		"one stream per user":    {[]string{"--streams", "100", "--rate", "1000", "--duration", "100ms"}, 100, 100, false},
		"three streams per user": {[]string{"--streams", "90", "--users", "30", "--rate", "1000", "--duration", "100ms"}, 100, 300, false},
		"all of one user":        {[]string{"--streams", "50", "--users", "1", "--rate", "100", "--duration", "100ms"}, 10, 500, true},
		"broadcast":              {[]string{"--streams", "50", "--broadcast", "--rate", "100", "--duration", "100ms"}, 10, 500, false},
		"closed loop":            {[]string{"--streams", "50", "--outstanding", "32", "--messages", "500"}, 500, 500, false},
		"closed loop broadcast":  {[]string{"--streams", "50", "--broadcast", "--outstanding", "3", "--messages", "20"}, 20, 1000, true},
		"HTTP/2":                 {[]string{"--streams", "300", "--http2", "--outstanding", "32", "--messages", "300"}, 300, 300, true},
		"two addresses":          {[]string{"--streams", "20", "--from", "127.0.0.1", "--from", "127.0.0.1", "--outstanding", "5", "--messages", "50"}, 50, 50, true},
		"large payloads":         {[]string{"--streams", "10", "--size", "100KiB", "--outstanding", "5", "--messages", "50"}, 50, 50, true},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && c.long {
				t.Skip("other cases cover most of this")
			}
			before := h.Scrape(t)
			r := mustRunBench(t, h, server, append([]string{"--ramp", "5000"}, c.flags...)...)
			if len(r.Loops) != 1 {
				t.Fatalf("%d loops", len(r.Loops))
			}
			l := r.Loops[0]
			if l.Messages != c.messages || l.Delivered != c.deliveries || l.Expected != c.deliveries || l.Latency.Count != c.deliveries || l.NoSubscriber != 0 {
				t.Errorf("%d messages, %d of %d deliveries, %d latencies; want %d and %d", l.Messages, l.Delivered, l.Expected, l.Latency.Count, c.messages, c.deliveries)
			}
			if hub := l.Cost.Hub; hub == nil || hub.RSSAfter == 0 || hub.Counters["usercast_messages_received_total"] == 0 {
				t.Errorf("the hub: %+v", hub)
			}
			if r.Connect.Opened != int64(r.Streams) {
				t.Errorf("%d streams opened of %d", r.Connect.Opened, r.Streams)
			}
			h.WantMetrics(t, map[string]float64{
				"usercast_messages_routed_total": before.Sum("usercast_messages_routed_total") + float64(c.messages),
				"usercast_deliveries_total":      before["usercast_deliveries_total"] + float64(c.deliveries),
				"usercast_connects_total":        before["usercast_connects_total"] + float64(r.Streams),
				"usercast_clients":               0,
			})
		})
	}
}

// bench measures a hub with TLS over both versions of HTTP and verifies its certificate unless --insecure is set.
func TestBenchOverTLS(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h, dir := hubtest.StartTLS(t, server, certtest.New(t, "bench"), "--max-clients-per-user", "0")
	bench := func(t *testing.T, env []string, flags ...string) (code int, r load.Report, stderr string) {
		t.Helper()
		args := append([]string{
			"bench", "--url", h.SecureURL("/events"), "--admin", h.AdminURL(""), "--redis", server.URL(), "--streams", "60", "--users", "20",
			"--ramp", "2000", "--outstanding", "16", "--messages", "100", "--json",
		}, flags...)
		var stdout string
		if env == nil {
			code, stdout, stderr = runCommand("", args...)
		} else { // a separate process, because a process reads SSL_CERT_FILE only once
			p := hubtest.StartProgram(t, env, args...)
			code = p.Wait(t)
			stdout, stderr = p.Stdout.String(), p.Stderr.String()
		}
		if err := json.Unmarshal([]byte(stdout), &r); err != nil {
			t.Fatal(err)
		}
		return code, r, stderr
	}
	trusted := []string{"SSL_CERT_FILE=" + filepath.Join(dir, "cert.pem")}
	for name, c := range map[string]struct {
		env   []string
		flags []string
	}{
		"HTTP/1.1":          {trusted, nil},
		"HTTP/2":            {trusted, []string{"--http2"}},
		"HTTP/1.1 insecure": {nil, []string{"--insecure"}},
		"HTTP/2 insecure":   {nil, []string{"--http2", "--insecure"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := h.Scrape(t)["usercast_deliveries_total"]
			code, r, stderr := bench(t, c.env, c.flags...)
			if code != 0 || r.Connect.Opened != 60 || len(r.Loops) != 1 || r.Loops[0].Delivered != 300 || r.Loops[0].Cost.Hub == nil {
				t.Fatalf("exit code %d, %+v, %s", code, r.Connect, stderr)
			}
			if !slices.Equal(r.URLs, []string{h.SecureURL("/events?user={user}")}) {
				t.Errorf("URLs %q", r.URLs)
			}
			h.WantMetrics(t, map[string]float64{"usercast_deliveries_total": before + 300, "usercast_clients": 0})
		})
	}
	t.Run("unknown authority", func(t *testing.T) {
		code, r, stderr := bench(t, nil)
		if code != exitFailure || r.Connect.Opened != 0 || !strings.Contains(stderr, "certificate signed by unknown authority") || !strings.Contains(stderr, "--insecure") {
			t.Errorf("exit code %d, %+v, %s", code, r.Connect, stderr)
		}
	})
}

func TestBenchWithTheStreamFeed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--feed", "stream", "--stream-key", "log", "--channel-prefix", "u:")
	l := mustRunBench(t, h, server, "--feed", "stream", "--stream-key", "log", "--channel-prefix", "u:", "--streams", "20", "--outstanding", "8", "--messages", "200").Loops[0]
	if l.Delivered != 200 || l.Unconfirmed != 0 || l.NoSubscriber != 0 {
		t.Errorf("%+v", l)
	}
}

func TestBenchMeasuresIdleStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("waits until the hub is idle")
	}
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--ping-interval", "100ms")
	r := mustRunBench(t, h, server, "--streams", "50", "--idle", "1s", "--messages", "1")
	if p := r.Idle; p == nil || p.Pings < 250 || p.Pings > 700 || p.HubKiB == nil {
		t.Errorf("%+v", p)
	}
}

func TestBenchPrintsAReport(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	code, stdout, stderr := runBench(h, server, "--streams", "40", "--users", "1", "--messages", "5", "--rate", "100")
	if code != exitFailure || !strings.HasPrefix(stderr, "usercast: 8 streams failed to open (8 busy: user-limit): start the hub with --max-clients-per-user 0") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	for _, words := range []string{"40 streams of 1 user at http://", "32 opened in ", "8 failed", "5 messages in ", "160 of 160 deliveries", "last stream", "p99.9", "0 lost, 0 duplicated, 0 out of order", "s CPU"} {
		if !strings.Contains(stdout, words) {
			t.Errorf("the report does not contain %q:\n%s", words, stdout)
		}
	}
}

// Scripts read these keys. Their names include units, and all of them are always present.
func TestBenchJSONShape(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	_, stdout, _ := runBench(h, server, "--streams", "5", "--users", "2", "--messages", "20", "--rate", "1000", "--outstanding", "2", "--json")
	var got map[string]any
	decoder := json.NewDecoder(strings.NewReader(stdout))
	if err := decoder.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		t.Errorf("output after the JSON object: %v", err)
	}
	keys := func(v any) (names []string) {
		for name := range v.(map[string]any) {
			names = append(names, name)
		}
		slices.Sort(names)
		return names
	}
	loops := got["loops"].([]any)
	if len(loops) != 2 {
		t.Fatalf("%d loops", len(loops))
	}
	latency := []string{"count", "max_ms", "mean_ms", "p50_ms", "p90_ms", "p99_9_ms", "p99_ms"}
	for _, c := range []struct {
		name string
		v    any
		want []string
	}{
		{"report", got, []string{"broadcast", "checks", "connect", "faults", "http2", "interrupted", "loops", "notes", "payload_bytes", "streams", "urls", "users"}},
		{"connect", got["connect"], []string{"cost", "failed", "failed_by", "first_bytes", "hub_cpu_us_per_connect", "opened", "seconds", "streams_per_s", "untried"}},
		{"checks", got["checks"], []string{"doubled", "ended", "foreign", "gaps", "lost", "lost_announced", "misordered", "missing_on_ended_streams", "wrong_user"}},
		{"latency", loops[0].(map[string]any)["latency"], latency},
		{"last stream", loops[0].(map[string]any)["last_stream_latency"], latency},
		{"cost", loops[0].(map[string]any)["cost"], []string{"client_cpu_s", "client_read_bytes", "client_reads", "hub"}},
		{"hub", loops[0].(map[string]any)["cost"].(map[string]any)["hub"], []string{"counters", "cpu_gc_s", "cpu_s", "heap_and_stack_after_bytes", "heap_and_stack_before_bytes", "rss_after_bytes", "rss_before_bytes"}},
		{"loop", loops[1], []string{
			"client_cpu_us_per_delivery", "cost", "deliveries", "deliveries_expected", "deliveries_per_s", "hub_cpu_s_per_1m_deliveries", "kind",
			"last_stream_latency", "latency", "messages", "messages_heard_by_nobody", "messages_unconfirmed", "outstanding", "pings", "publish_seconds", "publisher_lag_max_ms", "seconds",
		}},
	} {
		if got := keys(c.v); !slices.Equal(got, c.want) {
			t.Errorf("%s has %q, want %q", c.name, got, c.want)
		}
	}
}

func TestBenchReportsAllInvalidFlags(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := runCommand("", "bench",
		"--url", "ftp://127.0.0.1/", "--header", "Cookie", "--from", "here", "--admin", "127.0.0.1:8081", "--redis", "http://127.0.0.1",
		"--streams", "0", "--users=-1", "--ramp", "0", "--idle=-1s", "--rate", "fast", "--outstanding=-1", "--duration", "0s", "--messages", "x",
		"--size", "10", "--patience", "long", "--feed", "nats", "--stream-key", "", "--channel-prefix", "")
	if code != exitUsage || stdout != "" {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	flags := []string{
		"url", "header", "from", "admin", "redis", "streams", "users", "ramp", "idle", "rate", "outstanding", "duration", "messages",
		"size", "patience", "feed", "stream-key", "channel-prefix",
	}
	for _, flag := range flags {
		if strings.Count(stderr, "usercast: --"+flag+": ") != 1 {
			t.Errorf("--%s is not reported once:\n%s", flag, stderr)
		}
	}
	if n := strings.Count(stderr, "\n"); n != len(flags) {
		t.Errorf("%d lines for %d errors:\n%s", n, len(flags), stderr)
	}
}

func TestBenchRejectsOtherHosts(t *testing.T) {
	t.Parallel()
	if code, _, stderr := runCommand("", "bench", "--admin", "http://127.0.0.1:8081/?a=b"); code != exitUsage || !strings.Contains(stderr, "--admin: invalid URL") {
		t.Errorf("an admin URL with a query, to which /metrics would be appended: exit code %d, %q", code, stderr)
	}
	if code, _, stderr := runCommand("", "bench", "--url", "https://[fe80::1%25eth0]/events"); code != exitUsage || !strings.Contains(stderr, "--url: fe80::1%eth0 is not a loopback address") {
		t.Errorf("an address with a zone: exit code %d, %q", code, stderr)
	}
	for flag, value := range map[string]string{
		"url":   "http://192.0.2.1/events",
		"admin": "http://192.0.2.1:8081",
		"redis": "redis://192.0.2.1",
	} {
		code, _, stderr := runCommand("", "bench", "--"+flag, value)
		want := fmt.Sprintf("usercast: --%s: 192.0.2.1 is not a loopback address; to load-test another host that you own, set --yes-i-own-it\n", flag)
		if code != exitUsage || stderr != want {
			t.Errorf("--%s %s: exit code %d, %q", flag, value, code, stderr)
		}
	}
	for _, url := range []string{"redis+sentinel://127.0.0.1/mymaster", "redis+cluster://127.0.0.1"} {
		if code, _, stderr := runCommand("", "bench", "--redis", url); code != exitUsage || !strings.Contains(stderr, "--yes-i-own-it") {
			t.Errorf("%s: exit code %d, %q", url, code, stderr)
		}
	}
	// --yes-i-own-it allows another host.
	server := redistest.Start(t)
	server.Kill()
	code, _, stderr := runCommand("", "bench", "--yes-i-own-it", "--url", "http://192.0.2.1/events", "--redis", server.URL())
	if code != exitFailure || !strings.Contains(stderr, "connection refused; check that Redis is running") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

func TestBenchRunsWithoutMetrics(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	for name, admin := range map[string]string{"no listener": "http://127.0.0.1:1", "the public listener": h.PublicURL("")} {
		r := mustRunBench(t, h, server, "--admin", admin, "--admin", admin, "--streams", "5", "--messages", "5")
		if len(r.Notes) != 1 || !strings.HasPrefix(r.Notes[0], "cannot read the CPU, memory and counters of the hub: ") || r.Loops[0].Cost.Hub != nil {
			t.Errorf("%s: notes %q", name, r.Notes)
		}
	}
}

// bench ends soon after the hub or Redis fails, and reports the failure.
func TestBenchReportsFailuresDuringARun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kill  func(h *hubtest.Hub, server *redistest.Server, bench *hubtest.Program)
		fault string
		code  int
	}{
		"hub":   {func(h *hubtest.Hub, _ *redistest.Server, _ *hubtest.Program) { h.Interrupt() }, "50 streams ended early", exitFailure},
		"redis": {func(_ *hubtest.Hub, s *redistest.Server, _ *hubtest.Program) { s.Kill() }, "publishing stopped early: redis ", exitFailure},
		"frozen redis": {func(_ *hubtest.Hub, s *redistest.Server, _ *hubtest.Program) {
			s.Freeze()
		}, "Redis has not confirmed ", exitFailure},
		"interrupt": {func(_ *hubtest.Hub, _ *redistest.Server, b *hubtest.Program) { b.Signal(syscall.SIGINT) }, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			duration := "60s"
			if name == "frozen redis" {
				if testing.Short() {
					t.Skip("waits for a timeout")
				}
				duration = "3s"
			}
			server := redistest.Start(t)
			h := hubtest.Start(t, server)
			b := hubtest.StartProgram(t, nil, "bench", "--url", h.PublicURL("/events"), "--admin", h.AdminURL(""), "--redis", server.URL(),
				"--streams", "50", "--rate", "200", "--duration", duration, "--patience", "1s", "--json")
			hubtest.Eventually(t, "messages are delivered", func() bool { return h.Hub().Stats().Deliveries > 20 })
			begin := time.Now()
			c.kill(h, server, b)
			code := b.Wait(t)
			if name == "frozen redis" {
				server.Thaw()
			}
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("bench ended after %v", took)
			}
			var r load.Report
			if err := json.NewDecoder(bytes.NewReader([]byte(b.Stdout.String()))).Decode(&r); err != nil || len(r.Loops) != 1 || r.Loops[0].Delivered < 20 {
				t.Errorf("%v, %+v", err, r)
			}
			if c.fault == "" && len(r.Faults) > 0 || c.fault != "" && (len(r.Faults) != 1 || !strings.HasPrefix(r.Faults[0], c.fault)) {
				t.Errorf("faults %q", r.Faults)
			}
			if r.Interrupted != (name == "interrupt") {
				t.Errorf("interrupted: %v", r.Interrupted)
			}
		})
	}
}

// A hub that uses another Redis delivers no messages. bench reports the likely cause.
func TestBenchReportsTheWrongRedis(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, redistest.Start(t))
	code, stdout, stderr := runBench(h, redistest.Start(t), "--streams", "5", "--messages", "5", "--patience", "2s")
	if code != exitFailure || !strings.Contains(stderr, "5 messages were lost without a gap") || !strings.Contains(stdout, "check that the hub uses the same --redis") {
		t.Errorf("exit code %d, %q\n%s", code, stderr, stdout)
	}
}

func TestBenchRejectsTooManyStreamsAtStart(t *testing.T) {
	t.Parallel()
	code, _, stderr := runCommand("", "bench", "--streams", "2000000000", "--ramp", "1")
	if code != exitUsage || !strings.Contains(stderr, "usercast: --streams: 2000000000 ") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
