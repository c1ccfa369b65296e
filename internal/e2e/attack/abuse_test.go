//go:build unix

package attack

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/internal/certtest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// tooLate is the limit for the delay of a message to a well-behaved stream during an attack. It is far above
// the delays that are measured, because the attacker runs on the same machine.
const tooLate = 2 * time.Second

// A target is a hub, and a reference stream: a well-behaved stream to which messages are published
// 100 times per second. Each runs in its own process; the attacker is the test process.
type target struct {
	public, admin string
	tls           *tls.Config // nil: plain HTTP
	reference     *hubtest.Program
	bytesRead     int // of the output of the reference process
}

// startTarget starts a hub, with TLS if secure.
func startTarget(t *testing.T, secure bool, flags ...string) *target {
	t.Helper()
	return startTargetWith(t, secure, func(server *redistest.Server, flags ...string) (*hubtest.Program, string, string) {
		return hubtest.Serve(t, server, nil, flags...)
	}, flags...)
}

// startTargetWith is startTarget with a different function to start the program.
func startTargetWith(t *testing.T, secure bool, serve func(server *redistest.Server, flags ...string) (p *hubtest.Program, public, admin string), flags ...string) *target {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long")
	}
	s := new(target)
	scheme := "http://"
	if secure {
		pair := certtest.New(t, "attacked")
		cert, key := pair.Write(t, t.TempDir())
		flags = append(flags, "--tls-cert", cert, "--tls-key", key)
		s.tls = &tls.Config{RootCAs: certtest.Pool(pair)}
		scheme = "https://"
	}
	server := redistest.Start(t)
	_, s.public, s.admin = serve(server, flags...)
	s.reference = hubtest.StartHelper(t, "reference", scheme, s.public, server.Addr())
	hubtest.Eventually(t, "the reference stream receives something", func() bool { return s.reference.Stdout.String() != "" })
	return s
}

// measureReference opens a stream and publishes to it. For each message, it writes one line: the delay in nanoseconds.
func measureReference(args []string) error {
	scheme, addr, redis := args[0], args[1], args[2]
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	if scheme == "https://" {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	p, err := ssetest.OpenOn(conn, "user=quiet")
	if err != nil {
		return err
	}
	app, err := net.Dial("tcp", redis)
	if err != nil {
		return err
	}
	go io.Copy(io.Discard, app) // replies to PUBLISH
	go func() {
		for now := range time.Tick(10 * time.Millisecond) {
			io.WriteString(app, hubtest.RedisCommand("PUBLISH", "user-quiet", strconv.FormatInt(now.UnixNano(), 10)))
		}
	}()
	for {
		e, err := p.Next()
		if err != nil {
			return err
		}
		sent, err := strconv.ParseInt(e.Data, 10, 64)
		if err != nil {
			return err
		}
		fmt.Println(time.Now().UnixNano() - sent)
	}
}

// dial connects to the public listener. If it uses TLS, dial negotiates that protocol.
func (s *target) dial(protocol string) (net.Conn, error) {
	d := &net.Dialer{Timeout: hubtest.Patience}
	if s.tls == nil {
		return d.Dial("tcp", s.public)
	}
	config := s.tls.Clone()
	config.NextProtos = []string{protocol}
	return tls.DialWithDialer(d, "tcp", s.public, config)
}

// lateness returns the delays of the messages since the previous call, in order.
func (s *target) lateness(t *testing.T) (late []time.Duration) {
	t.Helper()
	output := s.reference.Stdout.String()
	output = output[:strings.LastIndexByte(output, '\n')+1]
	for line := range strings.Lines(output[s.bytesRead:]) {
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		late = append(late, time.Duration(ns))
	}
	s.bytesRead = len(output)
	slices.Sort(late)
	return late
}

func p99(sorted []time.Duration) time.Duration {
	return sorted[len(sorted)*99/100].Round(10 * time.Microsecond)
}

// attack runs an attack and reports its effect on the well-behaved stream. Afterwards it checks that the
// hub has released all resources.
func (s *target) attack(t *testing.T, how func(t *testing.T)) {
	t.Helper()
	scraped := func() hubtest.Samples { return hubtest.Scrape(t, s.admin) }
	s.lateness(t)
	time.Sleep(500 * time.Millisecond)
	quiet := s.lateness(t)
	hubtest.Within(t, hubtest.Patience, "the well-behaved stream receives messages", func() bool {
		quiet = append(quiet, s.lateness(t)...)
		return len(quiet) > 0
	})
	before, start := scraped(), time.Now()
	how(t)
	during, after, took := s.lateness(t), scraped(), time.Since(start)
	hubtest.Within(t, tooLate, "the well-behaved stream receives the next message", func() bool { return len(s.reference.Stdout.String()) > s.bytesRead })
	if len(during) == 0 {
		t.Fatal("the well-behaved stream received no message during the attack")
	}
	if last := during[len(during)-1]; last > tooLate {
		t.Errorf("a message to the well-behaved stream was %v late", last)
	}
	t.Logf("p99 of the well-behaved stream: %v before, %v during %v of attack (maximum %v); less than %v of it in the hub; the hub used %.2f cores",
		p99(quiet), p99(during), took.Round(100*time.Millisecond), during[len(during)-1].Round(10*time.Microsecond), delivery99(after, before),
		(after["process_cpu_seconds_total"]-before["process_cpu_seconds_total"])/took.Seconds())
	for deadline := time.Now().Add(hubtest.Patience); ; time.Sleep(100 * time.Millisecond) {
		m, left := scraped(), ""
		for name, most := range map[string]float64{
			"usercast_clients": 1,
			"go_goroutines":    before["go_goroutines"] + 5, // the number varies
			"process_open_fds": before["process_open_fds"] + 5,
		} {
			if m[name] > most {
				left += fmt.Sprintf(" %s is %v, was %v;", name, m[name], before[name])
			}
		}
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("resources are not released after the attack:%s", left)
		}
	}
}

// delivery99 returns an upper bound of the 99th percentile of the delivery time in the hub since the earlier samples.
func delivery99(s hubtest.Samples, before hubtest.Samples) time.Duration {
	const name = `usercast_delivery_seconds_bucket{le="`
	all := s["usercast_delivery_seconds_count"] - before["usercast_delivery_seconds_count"]
	least := math.Inf(1)
	for sample, n := range s {
		if le, ok := strings.CutPrefix(sample, name); ok && n-before[sample] >= 0.99*all {
			if bound, err := strconv.ParseFloat(strings.TrimSuffix(le, `"}`), 64); err == nil {
				least = min(least, bound)
			}
		}
	}
	if math.IsInf(least, 1) {
		return 0
	}
	return time.Duration(least * float64(time.Second))
}

// atOnce runs f concurrently in workers goroutines for that time, and returns the number of calls.
func atOnce(workers int, over time.Duration, f func(worker, i int)) (times int) {
	var (
		running sync.WaitGroup
		counts  = make([]int, workers)
		end     = time.Now().Add(over)
	)
	for w := range workers {
		running.Go(func() {
			for ; time.Now().Before(end); counts[w]++ {
				f(w, counts[w])
			}
		})
	}
	running.Wait()
	for _, n := range counts {
		times += n
	}
	return times
}

func TestHubUnderAttack(t *testing.T) {
	s := startTarget(t, false)
	t.Run("oversized headers", func(t *testing.T) { s.attack(t, s.bombs) })
	t.Run("streams opened and closed", func(t *testing.T) { s.attack(t, s.churn) })
}

// Slow attacks run concurrently, each against a separate hub.
func TestHubUnderSlowAttack(t *testing.T) {
	t.Parallel()
	t.Run("slow loris", func(t *testing.T) {
		t.Parallel()
		s := startTarget(t, false)
		s.attack(t, s.dribble)
	})
	t.Run("idle connections", func(t *testing.T) {
		t.Parallel()
		s := startTargetWith(t, false, func(server *redistest.Server, flags ...string) (*hubtest.Program, string, string) {
			return hubtest.ServeWithDescriptors(t, server, idlerDescriptors, flags...)
		})
		s.attack(t, s.idlers)
	})
}

// dribble is slow loris: it sends the head of a request at one byte per second.
func (s *target) dribble(t *testing.T) {
	const conns = 200
	start := time.Now()
	var running sync.WaitGroup
	defer running.Wait()
	for i := range conns {
		conn := hubtest.Dial(t, s.public)
		io.WriteString(conn, []string{"", "G", "GET /events?user=42 HTTP/1.1\r\nHost: h\r\nX-A: ", "PRI * HTTP/2.0\r\n\r\nS"}[i%4])
		cut := make(chan struct{})
		running.Go(func() {
			defer close(cut)
			io.Copy(io.Discard, conn)
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("connection closed after %v", took)
			}
		})
		running.Go(func() {
			beat := time.NewTicker(time.Second)
			defer beat.Stop()
			for {
				select {
				case <-cut:
					return
				case <-beat.C:
					io.WriteString(conn, "G")
				}
			}
		})
	}
}

// bombs sends requests with heads over the size limit.
func (s *target) bombs(t *testing.T) {
	const begin = "GET /events?user=42 HTTP/1.1\r\nHost: h\r\n"
	var many strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&many, "X-%d: b\r\n", i)
	}
	endless := strings.Repeat("c", 64<<10)
	n := atOnce(8, 700*time.Millisecond, func(_, i int) {
		conn, err := net.Dial("tcp", s.public)
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(hubtest.Patience))
		var sent sync.WaitGroup
		defer sent.Wait()
		defer conn.Close()
		sent.Go(func() {
			switch i % 3 {
			case 0:
				io.WriteString(conn, begin+"Cookie: "+endless+endless+"\r\n\r\n")
			case 1:
				io.WriteString(conn, begin+many.String()+"\r\n")
			case 2:
				_, err := io.WriteString(conn, begin+"Cookie: ")
				for err == nil {
					_, err = io.WriteString(conn, endless)
				}
			}
		})
		head, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if errors.Is(err, os.ErrDeadlineExceeded) || err == nil && head.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("response to oversized headers: %+v, %v", head, err)
		}
	})
	t.Logf("%d requests with oversized headers", n)
}

// churn opens and closes streams as fast as possible, and ends them in every way a client can.
func (s *target) churn(t *testing.T) {
	n := atOnce(8, time.Second, func(worker, i int) {
		conn, err := net.Dial("tcp", s.public)
		if err != nil {
			return // no free ports
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(hubtest.Patience))
		request := fmt.Sprintf("GET /events?user=%d-%d HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n", worker, i)
		if i/2%4 == 1 {
			request = request[:i%len(request)]
		}
		io.WriteString(conn, request)
		if i/2%4 == 2 {
			bufio.NewReader(conn).ReadString('\n')
		}
		if i%2 == 1 {
			conn.(*net.TCPConn).SetLinger(0) // close with RST
		}
	})
	t.Logf("%d connections", n)
}

// idlerDescriptors is the file descriptor limit of the hub that idlers attacks.
const idlerDescriptors = 300

// idlers opens about as many idle connections as the hub has file descriptors; the hub reserves a few.
// Until these connections time out, new clients receive busy. The hub delays each connection over
// its limit by an eighth of a second.
func (s *target) idlers(t *testing.T) {
	for range idlerDescriptors - 10 {
		hubtest.Dial(t, s.public)
	}
	start := time.Now()
	busy := 0
	var longest time.Duration
	hubtest.Within(t, 20*time.Second, "a new client is accepted", func() bool {
		sent := time.Now()
		p, err := ssetest.Request(s.public, "user=new")
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		e, fires, err := p.Block()
		longest = max(longest, time.Since(sent))
		if err != nil || fires && e.Type != "busy" {
			t.Fatalf("a new client receives %+v, %v", e, err)
		}
		if fires {
			busy++
			time.Sleep(100 * time.Millisecond)
		}
		return !fires
	})
	t.Logf("a new client is accepted after %v and %d busy events; the slowest response took %v", time.Since(start).Round(time.Millisecond), busy, longest)
	if longest > hubtest.Soon {
		t.Errorf("a response took %v", longest)
	}
	if busy == 0 {
		t.Error("the hub never reached its limit, so the test proves nothing")
	}
}
