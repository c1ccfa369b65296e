package auth_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"usercast/auth"
)

// A pool is an app with a fixed number of workers and a first-in, first-out backlog, such as PHP-FPM. Like PHP-FPM, it
// processes a request even if the client has closed the connection. It must be used inside a synctest bubble.
type pool struct {
	backlog  chan *poolRequest
	timeouts atomic.Int64 // requests that the hub canceled
	served   atomic.Int64 // requests that the hub did not cancel
	workers  sync.WaitGroup

	mu   sync.Mutex
	open int
	most int
	took func(address string) time.Duration // returns the duration of a check; 0: it fails immediately
}

type poolRequest struct {
	took time.Duration
	done chan struct{}
}

// newPool starts an app. stop must be called at the end of the bubble.
func newPool(workers int, took time.Duration) *pool {
	p := &pool{backlog: make(chan *poolRequest, 100_000), took: func(string) time.Duration { return took }}
	for range workers {
		p.workers.Go(func() {
			for r := range p.backlog {
				time.Sleep(r.took)
				close(r.done)
			}
		})
	}
	return p
}

func (p *pool) stop() {
	close(p.backlog)
	p.workers.Wait()
}

// set changes the duration of checks.
func (p *pool) set(took func(address string) time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took = took
}

// request sends a request that keeps a worker busy for some time.
func (p *pool) request(took time.Duration) *poolRequest {
	r := &poolRequest{took, make(chan struct{})}
	p.backlog <- r
	return r
}

func (p *pool) count(change int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open += change
	p.most = max(p.most, p.open)
}

// mostOpen returns the maximum number of checks in flight since its last call.
func (p *pool) mostOpen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	most := p.most
	p.most = p.open
	return most
}

// RoundTrip responds to a check.
func (p *pool) RoundTrip(r *http.Request) (*http.Response, error) {
	p.count(+1)
	defer p.count(-1)
	p.mu.Lock()
	took := p.took(r.Header.Get("X-Forwarded-For"))
	p.mu.Unlock()
	if took == 0 {
		return nil, errors.New("connection refused")
	}
	select {
	case <-p.request(took).done:
		p.served.Add(1)
		return &http.Response{StatusCode: 200, Header: http.Header{"X-User-Id": {"u"}}, Body: http.NoBody}, nil
	case <-r.Context().Done():
		p.timeouts.Add(1)
		return nil, r.Context().Err()
	}
}

// forward returns an authenticator with default settings for the app. It must be closed before stop.
func (p *pool) forward() *auth.Forward {
	u, _ := url.Parse("http://app.example/session")
	f := auth.NewForward(auth.ForwardConfig{URL: u, Cache: -1})
	f.SetTransport(p)
	return f
}

// browser returns the request of a user at an address.
func browser(user int, address string) *http.Request {
	r := from(fmt.Sprint(user))
	r.RemoteAddr = address + ":1"
	return r
}

func addressOf(i int) string { return fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255) }

// A storm simulates the time after a restart of the hub: all users reconnect within 1.5 to 4.5 s, and those that are
// rejected retry after 7.5 to 22.5 s.
type storm struct {
	users, workers int
	took           time.Duration // duration of a check
	atOnce         bool          // all users connect at the same time
	oneAddress     bool          // all users have the same address
	before         time.Duration // duration of each of 20 checks before the storm; 0: the hub is new
}

type stormResult struct {
	last     time.Duration // from the first connect to the last stream
	timeouts int64         // timeouts of checks that were sent more than a second after the first connect
	page     time.Duration // maximum duration of another page of the app
	curve    []int         // users with a stream after each second
	idle     time.Duration // time in which workers were idle although checks were queued
	waited   time.Duration // time in which checks were queued
}

func (s storm) run(t *testing.T) (out stormResult) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		const firstConnect = 1500 * time.Millisecond
		app := newPool(s.workers, s.took)
		f := app.forward()
		if s.before > 0 {
			app.set(func(string) time.Duration { return s.before })
			for i := range 20 {
				f.Authenticate(browser(s.users+i, addressOf(s.users+i)))
				time.Sleep(time.Second)
			}
			app.set(func(string) time.Duration { return s.took })
		}
		start := time.Now().Add(firstConnect)
		var in, early atomic.Int64
		var users, others sync.WaitGroup
		for i := range s.users {
			users.Go(func() {
				address, wait := addressOf(i), rand.N(3*time.Second)
				if s.oneAddress {
					address = addressOf(0)
				}
				if s.atOnce {
					wait = 0
				}
				time.Sleep(firstConnect + wait)
				for range 20 {
					if _, err := f.Authenticate(browser(i, address)); err == nil {
						in.Add(1)
						return
					}
					time.Sleep(7500*time.Millisecond + rand.N(15*time.Second))
				}
			})
		}
		stop := make(chan struct{})
		others.Go(func() { // another page of the app, now and then
			time.Sleep(time.Until(start))
			for {
				before := time.Now()
				<-app.request(14 * time.Millisecond).done
				out.page = max(out.page, time.Since(before))
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
		others.Go(func() {
			time.Sleep(time.Until(start))
			before, served := f.Stats(), int64(0)
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Second):
				}
				if len(out.curve) == 2 { // checks of the first second have ended
					early.Store(app.timeouts.Load())
				}
				now, count := f.Stats(), app.served.Load()
				if before.Waiting > 0 && now.Waiting > 0 {
					out.waited += time.Second
					out.idle += time.Second - time.Duration(count-served)*s.took/time.Duration(s.workers)
				}
				before, served = now, count
				out.curve = append(out.curve, int(in.Load()))
			}
		})
		users.Wait()
		out.last = time.Since(start)
		close(stop)
		others.Wait()
		out.timeouts = app.timeouts.Load() - early.Load()
		f.Close()
		app.stop()
		if n := in.Load(); n != int64(s.users) {
			t.Errorf("%d of %d users have a stream after %v: %v", n, s.users, out.last, out.curve)
		}
	})
	return out
}

// A small pool of workers processes checks that have already timed out in the app's queue, and retries make the queue
// longer. With a fixed limit of checks in flight, only 79 of 800 browsers had a stream after 22 seconds, and no further
// ones after that.
func TestForwardStormBehindFewWorkers(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, s := range map[string]storm{
		"200 users, 350 ms":              {users: 200, workers: 5, took: 350 * ms},
		"800 users, 350 ms":              {users: 800, workers: 5, took: 350 * ms},
		"800 users at once, 350 ms":      {users: 800, workers: 5, took: 350 * ms, atOnce: true},
		"800 users, one address, 350 ms": {users: 800, workers: 5, took: 350 * ms, oneAddress: true},
		"800 users, one worker, 40 ms":   {users: 800, workers: 1, took: 40 * ms},
		"200 users at once, 14 ms":       {users: 200, workers: 5, took: 14 * ms, atOnce: true},
		"800 users at once, 14 ms":       {users: 800, workers: 5, took: 14 * ms, atOnce: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := s.run(t)
			own := s.took * time.Duration(s.users) / time.Duration(s.workers)
			t.Logf("last after %v, %.2f times the app's own time; %d timeouts, slowest page %v, idle %v of %v; %v", r.last, r.last.Seconds()/own.Seconds(), r.timeouts, r.page, r.idle, r.waited, r.curve)
			if s.users >= 800 && r.last > own*13/10 {
				t.Errorf("all users have a stream after %v, want 1.3 times %v", r.last, own)
			}
			if r.timeouts > 0 {
				t.Errorf("%d checks timed out after the first second", r.timeouts)
			}
			if r.page > time.Second {
				t.Errorf("another page took %v", r.page)
			}
			if r.idle > r.waited/10 {
				t.Errorf("while checks were queued, workers were idle for %v of %v", r.idle, r.waited)
			}
		})
	}
}

// Before the storm, checks of visitors without a session may take much less time than those of users, or the app may
// have become slower since. The limit of checks in flight must not stay at 1 because of that.
func TestForwardStormAfterFasterChecks(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, s := range map[string]storm{
		"32 workers, 350 ms after 2 ms":  {users: 600, workers: 32, took: 350 * ms, before: 2 * ms},
		"32 workers, 100 ms after 40 ms": {users: 1000, workers: 32, took: 100 * ms, before: 40 * ms},
		"5 workers, 350 ms after 20 ms":  {users: 100, workers: 5, took: 350 * ms, before: 20 * ms},
		"5 workers, 350 ms after 50 ms":  {users: 800, workers: 5, took: 350 * ms, before: 50 * ms},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := s.run(t)
			own := max(3*time.Second, s.took*time.Duration(s.users)/time.Duration(s.workers))
			t.Logf("last after %v, the app's own time is %v; %d timeouts, slowest page %v; %v", r.last, own, r.timeouts, r.page, r.curve)
			if r.last > own*13/10+5*time.Second {
				t.Errorf("all users have a stream after %v, want 1.3 times %v and 5 s to notice", r.last, own)
			}
			if r.timeouts > 0 || r.page > time.Second {
				t.Errorf("%d checks timed out after the first second, another page took %v", r.timeouts, r.page)
			}
		})
	}
}

// steady lets users of many addresses authenticate, each one every 200 ms, and returns the longest duration.
func steady(t *testing.T, f *auth.Forward, addresses int, over time.Duration) (slowest time.Duration) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	for i := range addresses {
		all.Go(func() {
			time.Sleep(time.Duration(i) * 200 * time.Millisecond / time.Duration(addresses))
			for start := time.Now(); time.Since(start) < over; time.Sleep(200 * time.Millisecond) {
				before := time.Now()
				if _, err := f.Authenticate(browser(i, addressOf(i))); err != nil {
					t.Errorf("after %v: %v", time.Since(before), err)
				}
				mu.Lock()
				slowest = max(slowest, time.Since(before))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return slowest
}

// flood keeps a number of checks of one address queued until stop is called.
func flood(f *auth.Forward, address string, checks int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for i := range checks {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, err := f.Authenticate(browser(1_000_000+i, address).WithContext(ctx)); err != nil {
					select {
					case <-ctx.Done():
					case <-time.After(time.Second):
					}
				}
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

const slowAddress = "192.0.2.66"

// slowFor returns durations of checks that are longer for the slow address than for others.
func slowFor(slow, others time.Duration) func(string) time.Duration {
	return func(address string) time.Duration {
		if address == slowAddress {
			return slow
		}
		return others
	}
}

func TestForwardFastAppGetsAllChecks(t *testing.T) {
	t.Parallel()
	for _, oneAddress := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			app := newPool(32, 14*time.Millisecond)
			defer app.stop()
			f := app.forward()
			defer f.Close()
			var all sync.WaitGroup
			for i := range 1000 {
				address := addressOf(i)
				if oneAddress {
					address = addressOf(0)
				}
				all.Go(func() {
					if _, err := f.Authenticate(browser(i, address)); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if most := app.mostOpen(); most != 32 {
				t.Errorf("one address %v: at most %d checks were in flight, want 32", oneAddress, most)
			}
		})
	}
}

// Slow checks of one address neither use the slots of others nor lower the limit for them.
func TestForwardSlowAddressDoesNotDelayOthers(t *testing.T) {
	t.Parallel()
	for name, alone := range map[string]time.Duration{"from the start": 0, "alone for a while": 15 * time.Second} {
		for slow, took := range map[string]time.Duration{"slow": 1500 * time.Millisecond, "hanging": time.Hour} {
			for _, others := range []int{1, 20} {
				t.Run(fmt.Sprintf("%s, %s, %d others", name, slow, others), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						app := newPool(1000, 0)
						defer app.stop()
						app.set(slowFor(took, 14*time.Millisecond))
						f := app.forward()
						defer f.Close()
						stop := flood(f, slowAddress, 200)
						synctest.Wait()
						time.Sleep(alone)
						if slowest := steady(t, f, others, 20*time.Second); slowest > 150*time.Millisecond {
							t.Errorf("a check of another address took %v", slowest)
						}
						var all sync.WaitGroup // as many checks as the app has workers
						app.mostOpen()
						for i := range 500 {
							all.Go(func() {
								if _, err := f.Authenticate(browser(i, addressOf(i%others))); err != nil {
									t.Error(err)
								}
							})
						}
						all.Wait()
						if most := app.mostOpen(); most != 32 {
							t.Errorf("at most %d checks were in flight, want 32", most)
						}
						if limit := f.Stats().Concurrency; limit < 30 {
							t.Errorf("the limit is %d, want 32", limit)
						}
						stop()
					})
				})
			}
		}
	}
}

// The limit decreases when the app becomes slow, and increases again when the app recovers.
func TestForwardAdaptsToTheApp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := newPool(8, 50*time.Millisecond)
		defer app.stop()
		f := app.forward()
		defer f.Close()
		stops := make([]func(), 200)
		for i := range stops {
			stops[i] = flood(f, addressOf(i), 1)
		}
		limit := func(when string, least, most int) {
			t.Helper()
			highest := 0
			for range 50 { // the limit is low while the latency without a queue is measured
				highest = max(highest, f.Stats().Concurrency)
				time.Sleep(100 * time.Millisecond)
			}
			if highest < least || highest > most {
				t.Errorf("%s: the limit is %d, want %d to %d", when, highest, least, most)
			}
		}
		time.Sleep(10 * time.Second)
		limit("fast", 8, 20)
		app.set(func(string) time.Duration { return 300 * time.Millisecond })
		time.Sleep(time.Minute)
		limit("slow", 8, 20)
		if n := app.timeouts.Load(); n > 0 {
			t.Errorf("%d checks timed out", n)
		}
		app.set(func(string) time.Duration { return 0 })
		time.Sleep(20 * time.Second)
		limit("down", 1, 2)
		app.set(func(string) time.Duration { return 50 * time.Millisecond })
		time.Sleep(30 * time.Second)
		limit("up again", 8, 20)
		for _, stop := range stops {
			stop()
		}
	})
}

// A check with an expected wait of more than 10 s is rejected immediately. One with a shorter wait is sent.
func TestForwardRejectsCallsThatWouldWaitTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := newPool(1, 500*time.Millisecond)
		defer app.stop()
		f := app.forward()
		defer f.Close()
		stop := flood(f, addressOf(0), 10) // lets the hub measure the app
		time.Sleep(time.Minute)
		stop()
		time.Sleep(time.Minute)
		var accepted, rejected atomic.Int64
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				before := time.Now()
				_, err := f.Authenticate(browser(i, addressOf(i)))
				switch took := time.Since(before); {
				case err == nil && took <= 13*time.Second:
					accepted.Add(1)
				case err != nil && took == 0:
					rejected.Add(1)
				default:
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		synctest.Wait()
		before := time.Now()
		if _, err := f.Authenticate(browser(1000, addressOf(1000))); err == nil || auth.IsPermanent(err) || time.Since(before) > 0 {
			t.Errorf("one more: %v after %v, want an immediate temporary rejection", err, time.Since(before))
		}
		all.Wait()
		if n := accepted.Load(); n < 18 || n > 26 {
			t.Errorf("%d accepted, %d rejected; the app answers 20 in 10 s", n, rejected.Load())
		}
	})
}

// When the hub has measured the app, it immediately rejects queued checks that cannot be sent in time.
func TestForwardRejectsQueuedCallsEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := newPool(5, 350*time.Millisecond)
		defer app.stop()
		f := app.forward()
		defer f.Close()
		var rejected atomic.Int64
		var all sync.WaitGroup
		for i := range 400 {
			all.Go(func() {
				before := time.Now()
				if _, err := f.Authenticate(browser(i, addressOf(i))); err != nil {
					rejected.Add(1)
					if took := time.Since(before); took > 8*time.Second {
						t.Errorf("%v after %v", err, took)
					}
				}
			})
		}
		all.Wait()
		if n := rejected.Load(); n < 150 || n > 260 {
			t.Errorf("%d of 400 were rejected; the app answers 143 in 10 s", n)
		}
	})
}

// The limiter is empty after checks have ended in all possible ways.
func TestForwardLimiterIsEmptyAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := newPool(3, 0)
		defer app.stop()
		app.set(func(string) time.Duration { return rand.N(3 * time.Second) })
		f := app.forward()
		defer f.Close()
		var all sync.WaitGroup
		for i := range 2000 {
			all.Go(func() {
				time.Sleep(rand.N(20 * time.Second))
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(10*time.Second))
				defer cancel()
				f.Authenticate(browser(i, addressOf(i%50)).WithContext(ctx))
				if st := f.Stats(); st.InFlight < 0 || st.InFlight > st.Concurrency+16 || st.Waiting < 0 || st.Concurrency < 1 || st.Concurrency > 32 {
					t.Errorf("%+v", st)
				}
			})
		}
		all.Wait()
		time.Sleep(time.Minute)
		if left := f.Left(); left != "" {
			t.Error(left)
		}
	})
}

func TestForwardCountsChecksPerClientAddress(t *testing.T) {
	t.Parallel()
	proxies := auth.Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ffff::/48"), auth.UnixSocket}
	for _, test := range []struct {
		peer string
		list []string // X-Forwarded-For
		want string
	}{
		{"192.0.2.1:9", nil, "192.0.2.1"},
		{"192.0.2.1:9", []string{"198.51.100.1"}, "192.0.2.1"}, // not a proxy
		{"10.0.0.1:9", nil, "10.0.0.1"},
		{"10.0.0.1:9", []string{"198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:9", []string{"203.0.113.7, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"}, // the first address is set by the client
		{"10.0.0.1:9", []string{"203.0.113.7", "198.51.100.1:5000"}, "198.51.100.1"},
		{"10.0.0.1:9", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"10.0.0.1:9", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"10.0.0.1:9", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:9", []string{"[2001:db8:1:2:3::4]:5000"}, "2001:db8:1:2::"},
		{"[2001:db8:ffff::1]:9", []string{"2001:db8:1:2:9::9"}, "2001:db8:1:2::"},
		{"[2001:db8:1:2:3::4]:9", nil, "2001:db8:1:2::"},
		{"@", nil, "invalid IP"},
		{"unix:", nil, "invalid IP"},
		{"unix:", []string{"203.0.113.7, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"unix:", []string{"203.0.113.7, unix:"}, "invalid IP"},
	} {
		r := from("42")
		r.RemoteAddr = test.peer
		if test.list != nil {
			r.Header["X-Forwarded-For"] = test.list
		}
		if got := proxies.Client(r).String(); got != test.want {
			t.Errorf("peer %s, %q: %s, want %s", test.peer, test.list, got, test.want)
		}
	}
}
