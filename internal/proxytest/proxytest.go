// Package proxytest runs a real nginx, Apache, Caddy, HAProxy or lighttpd for a test, with a configuration as a user would
// write it. It runs on loopback, on a free port, with a temporary directory, and ends with the test.
package proxytest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"usercast/internal/need"
	"usercast/internal/redistest"
)

// patience is the timeout for the start of a proxy. It is long because it only matters to a test that fails.
const patience = 30 * time.Second

// Placeholders in a configuration.
const (
	Listen = "{listen}" // becomes 127.0.0.1:port
	Port   = "{port}"
	Dir    = "{dir}" // the proxy's directory
)

// HAProxy runs haproxy with a configuration that binds {listen}, and returns that address.
func HAProxy(tb testing.TB, config string) (addr string) {
	tb.Helper()
	return start(tb, "haproxy", "haproxy.cfg", config, func(file, _ string) []string { return []string{"-db", "-f", file} })
}

// Caddy runs caddy with a Caddyfile that has a site at {listen} or {port}.
func Caddy(tb testing.TB, config string) (addr string) {
	tb.Helper()
	// The admin endpoint would use a fixed port.
	config = "{\nadmin off\nauto_https disable_redirects\nstorage file_system " + Dir + "\n" + options(&config) + "}\n" + config
	return start(tb, "caddy", "Caddyfile", config, func(file, _ string) []string {
		return []string{"run", "--config", file, "--adapter", "caddyfile"}
	})
}

// options removes the global options block from the beginning of a Caddyfile and returns it.
func options(config *string) string {
	rest, ok := strings.CutPrefix(strings.TrimSpace(*config), "{\n")
	if !ok {
		return ""
	}
	block, rest, _ := strings.Cut(rest, "\n}\n")
	*config = rest
	return block + "\n"
}

// Nginx runs nginx with the given content of the http block, which must contain a server that listens on {listen}.
func Nginx(tb testing.TB, http string) (addr string) {
	tb.Helper()
	config := `
daemon off;
pid ` + Dir + `/pid;
error_log stderr;
worker_processes 1;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path ` + Dir + `/body;
    proxy_temp_path ` + Dir + `/proxy;
    fastcgi_temp_path ` + Dir + `/fastcgi;
    uwsgi_temp_path ` + Dir + `/uwsgi;
    scgi_temp_path ` + Dir + `/scgi;
` + http + `
}
`
	return start(tb, "nginx", "nginx.conf", config, func(file, dir string) []string {
		return []string{"-p", dir, "-e", "stderr", "-c", file}
	})
}

// start runs a proxy until it accepts connections; another process can take the port
// between FreePort and the proxy's bind.
func start(tb testing.TB, program, name, config string, args func(file, dir string) []string) string {
	tb.Helper()
	dir := tb.TempDir()
	path := need.Program(tb, program)
	var log []byte
	for range 5 {
		port := strconv.Itoa(redistest.FreePort(tb))
		addr := net.JoinHostPort("127.0.0.1", port)
		text := strings.NewReplacer(Listen, addr, Port, port, Dir, dir).Replace(config)
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		p := &process{tb: tb, cmd: exec.Command(path, args(file, dir)...), log: filepath.Join(dir, "log"), exited: make(chan struct{})}
		if p.run(dir, addr) {
			return addr
		}
		log, _ = os.ReadFile(p.log)
	}
	tb.Fatalf("%s did not start:\n%s", program, log)
	return ""
}

type process struct {
	tb     testing.TB
	cmd    *exec.Cmd
	log    string
	exited chan struct{} // closed when the process has ended
}

// run starts the process. It returns false if the process has ended.
func (p *process) run(dir, addr string) bool {
	p.tb.Helper()
	log, err := os.Create(p.log)
	if err != nil {
		p.tb.Fatal(err)
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	if err := p.cmd.Start(); err != nil {
		p.tb.Fatalf("start %s: %v", p.cmd.Path, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	p.tb.Cleanup(func() {
		_ = p.cmd.Process.Signal(os.Interrupt) // nginx then ends its worker, too
		select {
		case <-p.exited:
		case <-time.After(patience):
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
		if p.tb.Failed() {
			output, _ := os.ReadFile(p.log)
			p.tb.Logf("%s wrote:\n%s", p.cmd.Path, output[max(0, len(output)-1000):])
		}
	})
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-p.exited:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	p.tb.Fatalf("%s does not accept connections", p.cmd.Path)
	return false
}
