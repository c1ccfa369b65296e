package hubtest

import (
	"context"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"usercast/internal/app"
	"usercast/internal/flags"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// A Hub is an app.App in this process. It runs until the end of the test, or until Interrupt or Terminate.
type Hub struct {
	*app.App
	Log   *Output
	Ended chan struct{} // closed when Run has returned

	stop context.CancelCauseFunc
	err  error // result of Run
}

// Writers are the values of --writer.
var Writers = []string{app.WriterAuto, app.WriterPortable}

// EachWriter runs a test in parallel with each value of --writer, which it passes as a flag for the hub. Errors and ends
// of streams must not depend on it.
func EachWriter(t *testing.T, test func(t *testing.T, writer string)) {
	for _, kind := range Writers {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, "--writer="+kind)
		})
	}
}

// Start starts a hub with the flags of serve, and waits until it is ready.
func Start(tb testing.TB, server *redistest.Server, args ...string) *Hub {
	tb.Helper()
	h := Run(tb, New(tb, server.URL(), args...))
	h.AwaitReady(tb)
	return h
}

// New creates a hub for Run. Its listeners are already open.
func New(tb testing.TB, redisURL string, args ...string) *Hub {
	tb.Helper()
	return NewWith(tb, redisURL, func(*app.Parts) {}, args...)
}

// NewWith is New with changed parts, such as another authenticator.
func NewWith(tb testing.TB, redisURL string, change func(*app.Parts), args ...string) *Hub {
	tb.Helper()
	var c app.HubConfig
	parser, err := kong.New(&c, kong.Vars(app.FlagDefaults))
	if err != nil {
		tb.Fatal(err)
	}
	args = append([]string{"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--redis", redisURL, "--log-level", "debug", "--auth", app.AuthInsecure}, args...)
	if _, err := parser.Parse(args); err != nil {
		tb.Fatal(err)
	}
	var errs flags.Errors
	servers := c.Check(&errs)
	if err := errs.Err(); err != nil {
		tb.Fatal(err)
	}
	h := &Hub{Log: new(Output), Ended: make(chan struct{})}
	log := app.NewLog(&c.Config, h.Log)
	authn, err := c.Open(log)
	if err != nil {
		tb.Fatal(err)
	}
	if authn.Close != nil {
		tb.Cleanup(authn.Close)
	}
	parts := app.Parts{
		Redis:      servers,
		Auth:       authn,
		Navigate:   c.Auth == app.AuthInsecure,
		DrainDelay: c.DrainDelay.T,
		Drain:      c.Drain.T,
		Logger:     log,
	}
	change(&parts)
	if h.App, err = app.New(c.Config, parts); err != nil {
		tb.Fatal(err)
	}
	return h
}

// Run runs a hub. At the end of the test, App.Run must return, and the counters must add up.
func Run(tb testing.TB, h *Hub) *Hub {
	tb.Helper()
	ctx, stop := context.WithCancelCause(context.Background())
	h.stop = stop
	go func() {
		defer close(h.Ended)
		h.err = h.App.Run(ctx)
	}()
	tb.Cleanup(func() {
		h.Interrupt()
		h.Wait(tb)
		h.checkConservation(tb)
		if tb.Failed() {
			tb.Logf("the hub's log:\n%s", h.Log.tail())
		}
	})
	return h
}

// Terminate has the same effect as SIGTERM has on the program.
func (h *Hub) Terminate() { h.stop(nil) }

// Interrupt has the same effect as SIGINT has on the program.
func (h *Hub) Interrupt() { h.stop(app.ErrInterrupt) }

// Wait waits for the end of Run.
func (h *Hub) Wait(tb testing.TB) {
	tb.Helper()
	select {
	case <-h.Ended:
		if h.err != nil {
			tb.Errorf("Run: %v", h.err)
		}
	case <-time.After(Patience):
		tb.Fatal("Run does not return")
	}
}

// AwaitSubscription waits until the hub has subscribed to Redis for the nth time.
func (h *Hub) AwaitSubscription(tb testing.TB, n uint64) {
	tb.Helper()
	Eventually(tb, "the hub has subscribed to Redis", func() bool {
		s := h.FeedStats()[0]
		return s.Connected && s.Generation >= n
	})
}

// AwaitReady waits until the hub is subscribed to Redis and ready: until it has received its first marker, if it will
// receive one.
func (h *Hub) AwaitReady(tb testing.TB) {
	tb.Helper()
	Eventually(tb, "the hub is ready", func() bool {
		s := h.FeedStats()[0]
		return s.Connected && s.Marked
	})
}

// checkConservation checks invariant 9 for a hub that has stopped.
func (h *Hub) checkConservation(tb testing.TB) {
	tb.Helper()
	in, out := h.FeedStats()[0], h.Hub().Stats()
	if in.Received != in.Routed+in.Unrouted+in.Malformed+in.TooLarge {
		tb.Errorf("messages do not add up: %+v", in)
	}
	var discarded, ended uint64
	for _, n := range out.FramesDiscarded {
		discarded += n
	}
	for _, n := range out.Disconnects {
		ended += n
	}
	if out.FramesEnqueued != out.Deliveries+discarded || out.FramesQueued != 0 || out.QueueBytes != 0 {
		tb.Errorf("frames do not add up: %+v", out)
	}
	if out.Connects != ended || out.Clients != 0 || out.Users != 0 || out.Groups != 0 {
		tb.Errorf("streams do not add up: %+v", out)
	}
}

// PublicURL and AdminURL return URLs of the two listeners.
func (h *Hub) PublicURL(path string) string { return "http://" + h.PublicAddr() + path }
func (h *Hub) AdminURL(path string) string  { return "http://" + h.AdminAddr() + path }

// Scrape reads the metrics.
func (h *Hub) Scrape(tb testing.TB) Samples {
	tb.Helper()
	return Scrape(tb, h.AdminAddr())
}

// WantMetrics is the function WantMetrics for this hub.
func (h *Hub) WantMetrics(tb testing.TB, want map[string]float64) {
	tb.Helper()
	WantMetrics(tb, h.AdminAddr(), want)
}

// Open opens a stream, and reads its opening block. It is closed when the test ends.
func (h *Hub) Open(tb testing.TB, query string, headers ...string) *ssetest.Stream {
	tb.Helper()
	s, err := ssetest.Open(h.PublicAddr(), query, headers...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// OpenMany opens n streams, several at a time.
func (h *Hub) OpenMany(tb testing.TB, n int, query func(i int) string) []*ssetest.Stream {
	tb.Helper()
	streams := make([]*ssetest.Stream, n)
	tb.Cleanup(func() {
		for _, s := range streams {
			if s != nil {
				s.Close()
			}
		}
	})
	Each(tb, n, func(i int) (err error) {
		streams[i], err = ssetest.Open(h.PublicAddr(), query(i))
		return err
	})
	return streams
}
