package stream

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// With socket activation, a connection that is made while no hub runs is not refused: the next hub accepts it. The test is
// the service manager, with the protocol of sd_listen_fds(3).
func TestSocketActivationSurvivesARestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": socketPath(t)} {
		for _, writer := range []string{"auto", "portable"} {
			t.Run(network+" "+writer, func(t *testing.T) {
				t.Parallel()
				address := address // of this subtest; the writers share the outer one
				if network == "unix" {
					address += writer
				}
				l, err := net.Listen(network, address)
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				file, err := l.(interface{ File() (*os.File, error) }).File()
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				for range 2 {
					waiting, err := net.Dial(network, l.Addr().String())
					if err != nil {
						t.Fatal(err)
					}
					opened := make(chan error, 1)
					go func() {
						s, err := ssetest.OpenOn(waiting, "user=42")
						if err == nil {
							s.Close()
						}
						opened <- err
					}()
					// The shell's process id becomes that of the hub.
					command := hubtest.Command(nil, "sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"`, hubtest.Build(t), "serve", "--redis", server.URL(),
						"--listen", "systemd", "--admin-listen", "127.0.0.1:0", "--auth", "insecure", "--auth-insecure-anywhere", "--writer", writer, "--drain-delay", "0s", "--drain", "0s")
					command.ExtraFiles = []*os.File{file}
					var log hubtest.Output
					command.Stderr = &log
					if err := command.Start(); err != nil {
						t.Fatal(err)
					}
					if err := <-opened; err != nil {
						t.Errorf("%v\n%s", err, &log)
					}
					command.Process.Signal(syscall.SIGTERM)
					if err := command.Wait(); err != nil {
						t.Errorf("%v\n%s", err, &log)
					}
				}
			})
		}
	}
}

func TestSocketActivationNeedsOneSocket(t *testing.T) {
	t.Parallel()
	for want, setup := range map[string]string{
		"passed no socket":              `exec "$0" "$@"`,
		"passed 2 sockets":              `LISTEN_FDS=2 LISTEN_PID=$$ exec "$0" "$@" 3</dev/null 4</dev/null`,
		"not a listening stream socket": `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@" 3</dev/null`,
	} {
		p := hubtest.StartProcess(t, nil, "sh", "-c", setup, hubtest.Build(t), "serve", "--listen", "systemd", "--admin-listen", "127.0.0.1:0",
			"--auth", "insecure", "--auth-insecure-anywhere")
		if code := p.Wait(t); code != 1 || !strings.Contains(p.Stderr.String(), want) {
			t.Errorf("status %d, %s; want %q", code, &p.Stderr, want)
		}
	}
}
