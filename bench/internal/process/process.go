// Package process starts the programs that a measurement needs: builds of ours and a
// redis-server. All are killed in the end: there is nothing to save, and a drain would
// take its time.
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

// patience is how long a process may take to come up. It only bounds what fails.
const patience = 10 * time.Second

// A Process is a server that runs until it is stopped.
type Process struct {
	Cmd  *exec.Cmd
	log  string        // file of its output
	done chan struct{} // closed when it has ended
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

// Start runs a program and returns once it is ready. Its output goes into dir, under
// its name.
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
		_ = p.Cmd.Wait() // it is killed, or ready finds it missing
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
		return nil, fmt.Errorf("%s did not come up; it said:\n%s", name, p.Said())
	}
	select {
	case <-p.done: // another one answers there
		return nil, fmt.Errorf("%s ended at once; it said:\n%s", name, p.Said())
	default:
		return p, nil
	}
}

// Stop kills, and waits for the end.
func (p *Process) Stop() {
	_ = p.Cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

// Said is the end of what it has printed.
func (p *Process) Said() string {
	text, _ := os.ReadFile(p.log)
	const most = 2000
	return string(bytes.TrimSpace(text[max(0, len(text)-most):]))
}

// StartRedis starts a redis-server that keeps nothing.
func StartRedis(ctx context.Context, dir, address string) (*Process, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return Start(ctx, dir, "redis-server", "redis-server",
		[]string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--dir", dir},
		func() bool { return Ask(address, "PING") == "+PONG" })
}

// Ask sends Redis a command and returns the first line of the answer; "" when there
// is none.
func Ask(address, command string) string {
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
