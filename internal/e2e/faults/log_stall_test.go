package faults

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// A pipedProgram is usercast with a pipe as its stderr, which is read only by the test.
type pipedProgram struct {
	cmd    *exec.Cmd
	stderr *os.File
	exited chan struct{}
}

// startPiped starts usercast with a pipe that already contains what fill writes to it, unless fill is nil.
func startPiped(t *testing.T, fill func(pipe *os.File), args ...string) *pipedProgram {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if fill != nil {
		fill(w)
	}
	p := &pipedProgram{cmd: hubtest.Command(nil, hubtest.Build(t), args...), stderr: r, exited: make(chan struct{})}
	p.cmd.Stderr = w
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.exited
		r.Close()
	})
	return p
}

// fillPipe writes until the pipe is full.
func fillPipe(pipe *os.File) {
	pipe.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for line := []byte(strings.Repeat("x", 1023) + "\n"); ; {
		if _, err := pipe.Write(line); err != nil {
			break
		}
	}
	pipe.SetWriteDeadline(time.Time{})
}

// wait waits for the program and returns its exit code.
func (p *pipedProgram) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(hubtest.Patience):
		t.Fatal("the program does not exit")
		return -1
	}
}

// addresses reads the log up to the line with the addresses of the listeners.
func (p *pipedProgram) addresses(t *testing.T) (log *bufio.Reader, public, private string) {
	t.Helper()
	log = bufio.NewReader(p.stderr)
	for {
		line, err := log.ReadString('\n')
		if err != nil {
			t.Fatalf("the log ends before the addresses of the listeners: %v", err)
		}
		if m := hubtest.Listening.FindStringSubmatch(line); m != nil {
			return log, m[1], m[2]
		}
	}
}

// openAndLeave opens n streams of one user, each of which ends immediately. Each end is logged as a line
// of half a kilobyte, because control characters in a user ID are escaped.
func openAndLeave(public string, n int) error {
	const workers = 8
	failed := make(chan error, workers)
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for range n / workers {
				p, err := ssetest.Open(public, "user="+strings.Repeat("%01", 100))
				if err != nil {
					failed <- err
					return
				}
				p.Close()
			}
		})
	}
	running.Wait()
	close(failed)
	return <-failed
}

var droppedNote = regexp.MustCompile(`level=WARN msg="log lines dropped[^"]*" lines=(\d+)`)

func TestStalledLogDoesNotBlockTheHub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := startPiped(t, nil, "serve", "--auth", "insecure", "--redis", server.URL(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--log-level", "debug", "--ping-interval", "1s", "--drain-delay", "0", "--drain", "0", "--max-clients-per-user", "0")
	log, public, private := p.addresses(t)
	hubtest.Eventually(t, "the program is ready", func() bool {
		a, err := hubtest.TryRequest("GET", "http://"+private+"/readyz")
		return err == nil && a.Status == 200
	})
	// From here on, the log is not read.
	reader, err := ssetest.Open(public, "user=1&ping=event")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	const streams = 5000
	if err := openAndLeave(public, streams); err != nil {
		t.Fatalf("opening streams while the log is stalled: %v", err)
	}
	app := hubtest.NewPublisher(t, server.Addr())
	for i := range 3 {
		app.Publish(t, "user-1", strconv.Itoa(i))
		for {
			e, err := reader.Next()
			if err != nil {
				t.Fatalf("message %d is not received while the log is stalled: %v", i, err)
			}
			if e.Type != "ping" {
				if e.Data != strconv.Itoa(i) {
					t.Fatalf("received %+v, want message %d", e, i)
				}
				break
			}
		}
	}
	for range 2 {
		reader.WantEvent(t, "ping", "{}")
	}
	hubtest.Eventually(t, "all streams have ended", func() bool {
		return hubtest.Scrape(t, private).ByReason("usercast_disconnects_total", "closed") == streams
	})
	if n := hubtest.Scrape(t, private)["usercast_log_dropped_total"]; n == 0 {
		t.Error("usercast_log_dropped_total is 0 after more lines than fit into the pipe and the queue")
	}

	// From here on, the log is read again.
	written, noted := 0, 0
	for noted == 0 {
		line, err := log.ReadString('\n')
		if err != nil {
			t.Fatalf("the log ends without a note about dropped lines: %v", err)
		}
		if strings.Contains(line, "\\x01") {
			written++
		}
		if m := droppedNote.FindStringSubmatch(line); m != nil {
			noted, _ = strconv.Atoi(m[1])
		}
	}
	if dropped := hubtest.Scrape(t, private)["usercast_log_dropped_total"]; float64(noted) != dropped {
		t.Errorf("the log reports %d dropped lines, the metric %v", noted, dropped)
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	rest, err := io.ReadAll(log)
	if err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	lines := strings.Split(strings.TrimSuffix(string(rest), "\n"), "\n")
	for _, line := range lines {
		if strings.Contains(line, "\\x01") {
			written++
		}
	}
	// Some dropped lines are not about ended streams.
	if n := written + noted; written > streams || n < streams || n > streams+20 {
		t.Errorf("%d ended streams are logged and %d lines were dropped, of %d streams", written, noted, streams)
	}
	if !strings.Contains(lines[len(lines)-1], "msg=stopped") {
		t.Errorf("after the note, the log contains %q", lines)
	}
}

// A signal or an error must end the program even while the log is not read.
func TestStalledLogDoesNotDelayExit(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server := redistest.Start(t)
	for _, test := range []struct {
		name    string
		listen  string
		signals []syscall.Signal
		code    int
	}{
		{"taken port", l.Addr().String(), nil, 1},
		{"wrong flag", "nowhere", nil, 2},
		{"SIGINT", "", []syscall.Signal{syscall.SIGINT}, 0},
		{"second signal", "", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			listen := test.listen
			if listen == "" {
				listen = freePort(t)
			}
			p := startPiped(t, fillPipe, "serve", "--auth", "insecure", "--redis", server.URL(), "--listen", listen, "--admin-listen", "127.0.0.1:0",
				"--drain-delay", "1h")
			if test.signals != nil {
				hubtest.Eventually(t, "the program is ready", func() bool {
					a, err := hubtest.TryRequest("GET", "http://"+listen+"/readyz")
					return err == nil && a.Status == 200
				})
			}
			for i, sig := range test.signals {
				if i > 0 {
					hubtest.Eventually(t, "the program is stopping", func() bool {
						a, err := hubtest.TryRequest("GET", "http://"+listen+"/readyz")
						return err == nil && a.Status == 503
					})
				}
				p.cmd.Process.Signal(sig)
			}
			if code := p.wait(t); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
		})
	}
}

// freePort returns an address that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A closed log does not end the streams.
func TestHubContinuesAfterItsLogIsClosed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := startPiped(t, nil, "serve", "--auth", "insecure", "--redis", server.URL(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-level", "debug")
	_, public, private := p.addresses(t)
	hubtest.Eventually(t, "the program is ready", func() bool {
		a, err := hubtest.TryRequest("GET", "http://"+private+"/readyz")
		return err == nil && a.Status == 200
	})
	reader, err := ssetest.Open(public, "user=1")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := p.stderr.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	if err := openAndLeave(public, 8); err != nil {
		t.Fatal(err)
	}
	hubtest.Eventually(t, "unwritable lines are counted", func() bool {
		return hubtest.Scrape(t, private)["usercast_log_dropped_total"] > 0
	})
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-1", "hello")
	reader.Want(t, "hello")
}
