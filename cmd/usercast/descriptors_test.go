//go:build unix

package main

import (
	"net"
	"os"
	"os/exec"
	"testing"

	"usercast/internal/redistest"
)

// serveWithDescriptors starts serve with a low limit of open files.
func serveWithDescriptors(t *testing.T, server *redistest.Server, limit string, flags ...string) (p *program, public, private string) {
	t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p = startProcess(t, nil, shell, append([]string{"-c", `ulimit -n "$0" && exec "$@"`, limit, self,
		"serve", "--auth", "insecure", "--redis", server.URL(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--max-clients-per-user", "0"}, flags...)...)
	public, private = p.addresses(t)
	eventually(t, "the program is ready", func() bool {
		a, err := tryAsk("GET", "http://"+public+"/readyz")
		return err == nil && a.code == 200
	})
	return p, public, private
}

// fill opens streams until one is told "busy".
func fill(t *testing.T, public string) (streams []*page) {
	t.Helper()
	for range 1000 {
		s, err := dialPage(public, "user=42")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.close)
		e, _, err := s.block()
		if err != nil {
			t.Fatal(err)
		}
		if e.name == "busy" {
			return streams
		}
		streams = append(streams, s)
	}
	t.Fatal("the hub is never full")
	return nil
}

// A hub that is full tells newcomers so, however long they hold on to their
// connections: these must not use up the descriptors that are left.
func TestRefusedNewcomersDoNotUseUpDescriptors(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		_, public, _ := serveWithDescriptors(t, server, "200", writer)
		fill(t, public)
		for i := range 300 {
			s, err := dialPage(public, "user=42")
			if err != nil {
				t.Fatalf("newcomer %d: %v", i, err)
			}
			defer s.close() // not before the end of the test
			s.wantEvent(t, "busy", `{"reason":"clients"}`)
		}
		if a := ask(t, "GET", "http://"+public+"/readyz"); a.code != 200 {
			t.Errorf("/readyz of a full hub: %d", a.code)
		}
	})
}

// Whatever the descriptors have gone to, also with the limit of streams switched
// off: newcomers are told "not now", Redis and metrics are still reached, and
// all is well again when there is room.
func TestHubWithoutDescriptorsRecovers(t *testing.T) {
	if testing.Short() {
		t.Skip("uses up all descriptors, four times")
	}
	writers(t, func(t *testing.T, writer string) {
		t.Parallel()
		for name, use := range map[string]struct {
			flags []string
			up    func(t *testing.T, public string) (free func())
		}{
			"streams without a limit": {[]string{"--max-clients", "0"}, func(t *testing.T, public string) func() {
				streams := fill(t, public)
				if len(streams) < 30 {
					t.Errorf("64 descriptors are good for %d streams", len(streams))
				}
				return func() {
					for _, s := range streams {
						s.close()
					}
				}
			}},
			"half requests": {nil, func(t *testing.T, public string) func() {
				var conns []net.Conn
				for range 100 {
					conn := dialRaw(t, public)
					conn.Write([]byte("GET /events?user=42 HTTP/1.1\r\nHost: "))
					conns = append(conns, conn)
				}
				return func() {
					for _, c := range conns {
						c.Close()
					}
				}
			}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // mostly waits
				server := redistest.Start(t)
				app := newPublisher(t, server.Addr())
				p, public, private := serveWithDescriptors(t, server, "64", append(use.flags, writer, "--retry", "2s")...)
				open, err := openPageAt(public, "user=7")
				if err != nil {
					t.Fatal(err)
				}
				defer open.close()
				free := use.up(t, public)
				before := scrape(t, "http://"+private+"/metrics").with("usercast_rejects_total", "clients")
				s, err := dialPage(public, "user=42")
				if err != nil {
					t.Fatal(err)
				}
				defer s.close()
				s.wantEvent(t, "busy", `{"reason":"clients"}`)
				if m := scrape(t, "http://"+private+"/metrics"); m.with("usercast_rejects_total", "clients") < before+1 {
					t.Error("the refusal is not counted")
				}
				// The link to Redis is made anew meanwhile.
				app.do(t, "CLIENT", "KILL", "TYPE", "pubsub")
				open.wantGap(t, "redis-reconnect")
				app.publish(t, "user-7", "still here")
				open.want(t, "still here")

				free()
				eventually(t, "there is room again", func() bool {
					s, err := dialPage(public, "user=42")
					if err != nil {
						t.Fatal(err)
					}
					defer s.close()
					e, fires, err := s.block()
					return err == nil && !fires && e.name == "ping"
				})
				select {
				case <-p.exited:
					t.Fatal("the program has ended")
				default:
				}
			})
		}
	})
}
