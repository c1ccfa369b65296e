//go:build unix

package faults

import (
	"net"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// fill opens streams until one receives busy.
func fill(t *testing.T, public string) (streams []*ssetest.Stream) {
	t.Helper()
	for range 1000 {
		s, err := ssetest.Request(public, "user=42")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		e, _, err := s.Block()
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == "busy" {
			return streams
		}
		streams = append(streams, s)
	}
	t.Fatal("the hub never reaches its limit")
	return nil
}

// A hub at capacity sends busy to new clients, even if they keep their connections open. These
// connections must not use up the remaining file descriptors.
func TestRejectedClientsDoNotUseUpDescriptors(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		_, public, _ := hubtest.ServeWithDescriptors(t, server, 200, "--max-clients-per-user", "0", writer)
		fill(t, public)
		for i := range 100 { // more than the remaining file descriptors
			s, err := ssetest.Request(public, "user=42")
			if err != nil {
				t.Fatalf("new client %d: %v", i, err)
			}
			defer s.Close() // only at the end of the test
			s.WantEvent(t, "busy", `{"reason":"clients"}`)
		}
		if a := hubtest.Request(t, "GET", "http://"+public+"/readyz"); a.Status != 200 {
			t.Errorf("/readyz of a hub at capacity: %d", a.Status)
		}
	})
}

// When all file descriptors are in use, for any reason and also without a limit of streams, new clients receive busy,
// Redis and the metrics remain reachable, and the hub recovers when descriptors are released.
func TestHubWithoutDescriptorsRecovers(t *testing.T) {
	if testing.Short() {
		t.Skip("uses up all file descriptors, four times")
	}
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		for name, use := range map[string]struct {
			flags []string
			up    func(t *testing.T, public string) (free func())
		}{
			"streams without a limit": {[]string{"--max-clients", "0"}, func(t *testing.T, public string) func() {
				streams := fill(t, public)
				if len(streams) < 30 {
					t.Errorf("%d streams with 64 file descriptors, want at least 30", len(streams))
				}
				return func() {
					for _, s := range streams {
						s.Close()
					}
				}
			}},
			"half requests": {nil, func(t *testing.T, public string) func() {
				var conns []net.Conn
				for range 100 {
					conn := hubtest.Dial(t, public)
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
				t.Parallel() // it mostly waits
				server := redistest.Start(t)
				app := hubtest.NewPublisher(t, server.Addr())
				p, public, private := hubtest.ServeWithDescriptors(t, server, 64, append(use.flags, "--max-clients-per-user", "0", writer, "--retry", "2s")...)
				open, err := ssetest.Open(public, "user=7")
				if err != nil {
					t.Fatal(err)
				}
				defer open.Close()
				free := use.up(t, public)
				before := hubtest.Scrape(t, private).ByReason("usercast_rejects_total", "clients")
				s, err := ssetest.Request(public, "user=42")
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				s.WantEvent(t, "busy", `{"reason":"clients"}`)
				if m := hubtest.Scrape(t, private); m.ByReason("usercast_rejects_total", "clients") < before+1 {
					t.Error("the rejection is not counted")
				}
				// The connection to Redis is reopened meanwhile.
				app.Do(t, "CLIENT", "KILL", "TYPE", "pubsub")
				open.WantGap(t, "redis-reconnect")
				app.Publish(t, "user-7", "still here")
				open.Want(t, "still here")

				free()
				hubtest.Eventually(t, "a new stream is accepted", func() bool {
					s, err := ssetest.Request(public, "user=42")
					if err != nil {
						t.Fatal(err)
					}
					defer s.Close()
					e, fires, err := s.Block()
					return err == nil && !fires && e.Type == "ping"
				})
				select {
				case <-p.Exited:
					t.Fatal("the program has exited")
				default:
				}
			})
		}
	})
}
