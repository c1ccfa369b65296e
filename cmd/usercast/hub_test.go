package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"usercast/internal/app"
	"usercast/internal/flags"
	"usercast/internal/redistest"
)

const (
	authInsecure, authForward, authHeader, authJWT = app.AuthInsecure, app.AuthForward, app.AuthHeader, app.AuthJWT
	feedPubSub, feedStream                         = app.FeedPubSub, app.FeedStream
	writerAuto, writerPortable                     = app.WriterAuto, app.WriterPortable
	defaultPrefix, defaultStreamKey                = app.DefaultPrefix, app.DefaultStreamKey
	gapSpread, programSize                         = app.GapSpread, app.ProgramSize
)

var (
	errInterrupt    = app.ErrInterrupt
	descriptorLimit = app.DescriptorLimit
)

// A liveHub is an App that runs until the test ends or stops it.
type liveHub struct {
	*app.App
	log  *output
	stop context.CancelCauseFunc

	ended chan struct{} // closed when Run has returned
	err   error         // what it returned
}

// writers runs a test with each kind of --writer, as a flag for its hub: a fault, or the
// end of a stream, is the same with all of them. A short run makes do with the default.
func writers(t *testing.T, test func(t *testing.T, writer string)) {
	for _, kind := range []string{writerAuto, writerPortable} {
		if testing.Short() && kind != writerAuto {
			continue
		}
		t.Run(kind, func(t *testing.T) { test(t, "--writer="+kind) })
	}
}

// startHub starts a hub with the flags of serve, and waits for its subscription.
func startHub(t *testing.T, server *redistest.Server, flags ...string) *liveHub {
	t.Helper()
	h := runHub(t, newHub(t, server.URL(), flags...))
	h.waitUntilSubscribed(t, 1)
	return h
}

// newHub makes what runHub runs.
func newHub(t *testing.T, redisURL string, flags ...string) *liveHub {
	t.Helper()
	return newHubWith(t, redisURL, func(*app.Parts) {}, flags...)
}

// newHubWith is newHub with changed parts, another authenticator for one.
func newHubWith(t *testing.T, redisURL string, change func(*app.Parts), args ...string) *liveHub {
	t.Helper()
	var c app.HubConfig
	parser, err := kong.New(&c, kong.Vars(app.FlagDefaults))
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--redis", redisURL, "--log-level", "debug", "--auth", authInsecure}, args...)
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	var errs flags.Errors
	servers := c.Check(&errs)
	if err := errs.Err(); err != nil {
		t.Fatal(err)
	}
	h := &liveHub{log: new(output), ended: make(chan struct{})}
	log := app.NewLog(&c.Config, h.log)
	authn, err := c.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	if authn.Close != nil {
		t.Cleanup(authn.Close)
	}
	parts := app.Parts{
		Redis:      servers,
		Auth:       authn,
		Navigate:   c.Auth == authInsecure,
		DrainDelay: c.DrainDelay.T,
		Drain:      c.Drain.T,
		Logger:     log,
	}
	change(&parts)
	h.App, err = app.New(c.Config, parts)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// runHub runs a hub. When the test is over, Run must return, and what was counted
// must add up.
func runHub(t *testing.T, h *liveHub) *liveHub {
	t.Helper()
	ctx, stop := context.WithCancelCause(context.Background())
	h.stop = stop
	go func() {
		defer close(h.ended)
		h.err = h.Run(ctx)
	}()
	t.Cleanup(func() {
		stop(errInterrupt)
		h.wait(t)
		h.checkConservation(t)
		if t.Failed() {
			t.Logf("the hub's log:\n%s", h.log.tail(4000))
		}
	})
	return h
}

// wait waits for the end of Run.
func (h *liveHub) wait(t *testing.T) {
	t.Helper()
	select {
	case <-h.ended:
		if h.err != nil {
			t.Errorf("Run: %v", h.err)
		}
	case <-time.After(patience):
		t.Fatal("Run does not return")
	}
}

func (h *liveHub) waitUntilSubscribed(t *testing.T, generation uint64) {
	t.Helper()
	eventually(t, "the hub has subscribed to Redis", func() bool {
		s := h.FeedStats()[0]
		return s.Connected && s.Generation >= generation
	})
}

// checkConservation adds up what a stopped hub has counted.
func (h *liveHub) checkConservation(t *testing.T) {
	t.Helper()
	in, out := h.FeedStats()[0], h.Hub().Stats()
	if in.Received != in.Routed+in.Unrouted+in.Malformed+in.TooLarge {
		t.Errorf("messages do not add up: %+v", in)
	}
	var discarded, ended uint64
	for _, n := range out.FramesDiscarded {
		discarded += n
	}
	for _, n := range out.Disconnects {
		ended += n
	}
	if out.FramesEnqueued != out.Deliveries+discarded || out.FramesQueued != 0 || out.QueueBytes != 0 {
		t.Errorf("frames do not add up: %+v", out)
	}
	if out.Connects != ended || out.Clients != 0 || out.Users != 0 {
		t.Errorf("streams do not add up: %+v", out)
	}
}

// An answer is what a client got that is no page.
type answer struct {
	code   int
	header http.Header
	body   string
}

var plainClient = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   patience,
}

// ask sends one request over a connection of its own. Headers are "Name: value".
func ask(t *testing.T, method, url string, headers ...string) answer {
	t.Helper()
	a, err := tryAsk(method, url, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func tryAsk(method, url string, headers ...string) (answer, error) {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		return answer{}, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := plainClient.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}

// public and admin are URLs of the two listeners.
func (h *liveHub) public(path string) string  { return "http://" + h.PublicAddr() + path }
func (h *liveHub) private(path string) string { return "http://" + h.AdminAddr() + path }

// samples are the figures of a scrape, by name with labels as Prometheus prints
// them.
type samples map[string]float64

func (h *liveHub) scrape(t *testing.T) samples {
	t.Helper()
	return scrape(t, h.private("/metrics"))
}

func scrape(t *testing.T, url string) samples {
	t.Helper()
	a := ask(t, "GET", url)
	if a.code != 200 {
		t.Fatalf("a scrape is answered with %d: %s", a.code, a.body)
	}
	s := make(samples)
	for line := range strings.Lines(a.body) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		if err != nil {
			t.Fatalf("a scrape holds %q: %v", line, err)
		}
		s[line[:i]] = v
	}
	return s
}

// sum adds up a metric over all its labels, or those that begin so.
func (s samples) sum(name string) (sum float64) {
	for sample, v := range s {
		if sample == name || strings.HasPrefix(sample, name) && strings.HasPrefix(sample[len(name):], "{") {
			sum += v
		}
	}
	return sum
}

// with reads a sample by its reason.
func (s samples) with(name, reason string) float64 { return s[name+reasonLabel(reason)] }

func reasonLabel(reason string) string { return `{reason="` + reason + `"}` }

// wantMetrics wants sums of metrics, by name with or without labels. A page may
// have read what the hub has not counted yet, so it waits a little.
func (h *liveHub) wantMetrics(t *testing.T, want map[string]float64) {
	t.Helper()
	for deadline := time.Now().Add(soon); ; time.Sleep(2 * time.Millisecond) {
		m, right := h.scrape(t), true
		for name, v := range want {
			right = right && m.sum(name) == v
		}
		if right {
			return
		}
		if time.Now().After(deadline) {
			for name, v := range want {
				if got := m.sum(name); got != v {
					t.Errorf("%s is %v, want %v", name, got, v)
				}
			}
			return
		}
	}
}

// output is what a program writes, readable while it does.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// lines are those that hold all the words.
func (o *output) lines(words ...string) (lines []string) {
next:
	for line := range strings.Lines(o.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue next
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func (o *output) tail(n int) string {
	s := o.String()
	return s[max(0, len(s)-n):]
}
