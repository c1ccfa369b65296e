package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// patience is how long a process may take to come up. It only bounds what fails.
const patience = 10 * time.Second

// A process is a server that runs until it is stopped.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // file of its output
	done chan struct{} // closed when it has ended
}

// start runs a program and returns once it is ready.
func start(ctx context.Context, dir, name, program string, args []string, ready func() bool) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	output, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	p.cmd = exec.CommandContext(ctx, program, args...)
	p.cmd.Stdout, p.cmd.Stderr = output, output
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // it is killed, or ready finds it missing
	}()
	for deadline := time.Now().Add(patience); !ready(); {
		select {
		case <-p.done:
		case <-time.After(20 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		p.stop()
		return nil, fmt.Errorf("%s did not come up; it said:\n%s", name, p.said())
	}
	select {
	case <-p.done: // another one answers there
		return nil, fmt.Errorf("%s ended at once; it said:\n%s", name, p.said())
	default:
		return p, nil
	}
}

// stop kills: there is nothing to save, and a drain would take its time.
func (p *process) stop() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// said is the end of what it has printed.
func (p *process) said() string {
	text, _ := os.ReadFile(p.log)
	const most = 2000
	return string(bytes.TrimSpace(text[max(0, len(text)-most):]))
}

// startRedis starts a redis-server that keeps nothing.
func startRedis(ctx context.Context, dir, address string) (*process, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return start(ctx, dir, "redis-server", "redis-server",
		[]string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", dir},
		func() bool { return ask(address, "PING") == "+PONG" })
}

// startHub starts a hub and returns once it has subscribed and answers.
func (v *versus) startHub(ctx context.Context, h hub, ping string) (*process, error) {
	return start(ctx, v.dir, h.name, v.programs[h.name], h.args(v, ping), func() bool {
		if ask(v.redis, "PUBSUB NUMPAT") != ":1" {
			return false
		}
		conn, err := net.Dial("tcp", v.listen)
		if err != nil {
			return false
		}
		conn.Close()
		answer, err := http.Get("http://" + v.admin + "/metrics")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// ask sends Redis a command and returns the first line of the answer; "" when there
// is none.
func ask(address, command string) string {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // the answer is missing then
	if _, err := fmt.Fprint(conn, command+"\r\n"); err != nil {
		return ""
	}
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}

// load runs usercast bench and returns what it reported. That messages were lost is
// a result, too: bench says so with its exit status.
func (v *versus) load(ctx context.Context, s scenario) ([]byte, error) {
	args := []string{"bench", "--json", "--url", "http://" + v.listen + "/events?user={user}",
		"--admin", "http://" + v.admin, "--redis", "redis://" + v.redis,
		"--streams", fmt.Sprint(v.streams), "--duration", v.duration.String()}
	cmd := exec.CommandContext(ctx, v.programs[loader], append(args, s.args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	report, err := cmd.Output()
	if err != nil && (ctx.Err() != nil || len(report) == 0) {
		return nil, fmt.Errorf("usercast bench: %w\n%s", err, said.Bytes())
	}
	return report, nil
}
