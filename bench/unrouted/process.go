package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// A process is a process that unrouted has started.
type process struct {
	cmd    *exec.Cmd
	output bytes.Buffer // valid after the process has ended
}

func start(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill() // fails if the process has already ended
	_ = p.cmd.Wait()         // killed
}

// cpu returns the CPU time of the process so far, in user and kernel mode.
func (p *process) cpu() time.Duration {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	kernel, _ := strconv.Atoi(fields[12])
	return time.Duration(user+kernel) * 10 * time.Millisecond // USER_HZ is 100
}

// await waits until done returns true.
func await(what string, done func() bool) error {
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("timed out while waiting for %s", what)
		}
	}
	return nil
}

func startRedis(addr string) (*process, error) {
	_, port, _ := net.SplitHostPort(addr)
	p, err := start("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, err
	}
	err = await("redis-server to respond", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("%w: %s", err, &p.output)
	}
	return p, nil
}

// A hub is a process of usercast, with the address of its admin listener.
type hub struct {
	*process
	admin string
}

func startHub(program, redis, feed, public, admin string) (hub, error) {
	p, err := start(program, "serve", "--auth", "insecure", "--redis", "redis://"+redis, "--feed", feed, "--listen", public, "--admin-listen", admin)
	if err != nil {
		return hub{}, err
	}
	h := hub{p, admin}
	err = await("the hub to be ready", func() bool {
		resp, err := http.Get("http://" + admin + "/readyz")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil && resp.StatusCode == 200
	})
	if err != nil {
		p.stop()
		return hub{}, fmt.Errorf("%w: %s", err, &p.output)
	}
	return h, nil
}

// metric returns the sum of a metric over its labels.
func (h hub) metric(name string) (sum float64, err error) {
	resp, err := http.Get("http://" + h.admin + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return sumOf(string(text), name), err
}

func sumOf(exposition, name string) (sum float64) {
	for line := range strings.Lines(exposition) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			value, _ := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
			sum += value
		}
	}
	return sum
}
