// Package process starts the programs of a measurement: builds of this module and a redis-server. It stops them with
// SIGKILL, because a graceful shutdown would take several seconds.
package process

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// patience is how long to wait until a process is ready, and for a response of Redis.
const patience = 10 * time.Second

// A Process is a server that runs until it is stopped.
type Process struct {
	Cmd  *exec.Cmd
	log  string        // path of the file with its output
	done chan struct{} // closed when the process has ended
}

// Build builds a program of this module.
func Build(ctx context.Context, program, pkg string) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", program, pkg)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build %s: %w", pkg, err)
	}
	return nil
}

// Start starts a program and returns when it is ready. Its output goes into a file in dir.
func Start(ctx context.Context, dir, name, program string, args []string, ready func() bool) (*Process, error) {
	p := &Process{log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	output, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	p.Cmd = exec.CommandContext(ctx, program, args...)
	p.Cmd.Stdout, p.Cmd.Stderr = output, output
	if err := p.Cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.Cmd.Wait() // the process is killed, or ready never returns true
	}()
	for deadline := time.Now().Add(patience); !ready(); {
		select {
		case <-p.done:
		case <-time.After(20 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		p.Stop()
		return nil, fmt.Errorf("%s did not become ready; output:\n%s", name, p.Output())
	}
	select {
	case <-p.done: // another process responds at its address
		return nil, fmt.Errorf("%s ended immediately; output:\n%s", name, p.Output())
	default:
		return p, nil
	}
}

// Stop kills the process and waits until it has ended.
func (p *Process) Stop() {
	_ = p.Cmd.Process.Kill() // fails if the process has already ended
	<-p.done
}

// Output returns the end of the output of the process.
func (p *Process) Output() string {
	text, _ := os.ReadFile(p.log)
	const most = 2000
	return string(bytes.TrimSpace(text[max(0, len(text)-most):]))
}

// StartRedis starts a redis-server without persistence.
func StartRedis(ctx context.Context, dir, address string) (*Process, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return Start(ctx, dir, "redis-server", "redis-server",
		[]string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", dir},
		func() bool { return Ask(address, "PING") == "+PONG" })
}

// Ask sends a command to Redis and returns the first line of the response, or "" without a response.
func Ask(address, command string) string {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // on an error, the read fails too
	if _, err := fmt.Fprint(conn, command+"\r\n"); err != nil {
		return ""
	}
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line)
}
