package faults

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/hubtest"
	"usercast/internal/netnstest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// A peer that drops off without a FIN sends nothing, so the hub must detect it by a timeout. A stalled peer still
// acknowledges, so it has a different reason.
func TestLostPeerIsDeadWithinPingAndWriteTimeout(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for timeouts of the kernel")
	}
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		for name, disconnect := range map[string]func(*netnstest.Network){
			"cable": (*netnstest.Network).Unplug,
			"radio": (*netnstest.Network).Mute,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // it mostly waits for timeouts
				const ping, timeout = time.Second, 2 * time.Second
				network := netnstest.New(t)
				server := redistest.Start(t)
				h := hubtest.Start(t, server, writer, "--listen", network.Host()+":0", "--auth-insecure-anywhere", "--ping-interval", ping.String(), "--write-timeout", timeout.String(), "--send-buffer", "4096")
				app := hubtest.NewPublisher(t, server.Addr())
				r := remote{t, h, network}
				here := h.OpenMany(t, 3, func(int) string { return "user=here" })
				r.open("idle", 0)
				r.open("idle", 0)
				r.openHTTP2("idle")
				for _, p := range []*ssetest.Stream{r.open("busy", 0), r.openHTTP2("busy")} {
					app.Publish(t, "user-busy", "before")
					p.Want(t, "before")
				}
				r.open("large", 0)
				r.openHTTP2("large")
				const dead = 7

				r.open("stalled", 2048)
				large := strings.Repeat("x", 1<<20)
				app.Publish(t, "user-stalled", large)
				hubtest.Within(t, timeout+hubtest.Soon, "the stalled peer is slow", func() bool { return h.Hub().Stats().Disconnects[hub.ReasonSlow] == 1 })

				disconnect(network)
				app.Publish(t, "user-large", large)
				hubtest.Within(t, ping+timeout+hubtest.Soon, "the other streams have ended", func() bool {
					app.Publish(t, "user-busy", "after")
					time.Sleep(20 * time.Millisecond)
					return h.Hub().Stats().Clients == len(here)
				})
				h.WantMetrics(t, map[string]float64{
					"usercast_disconnects_total" + hubtest.Reason("dead"): dead,
					"usercast_disconnects_total":                          dead + 1,
				})
				app.Publish(t, "user-*", "hello")
				for _, p := range here {
					p.Want(t, "hello")
				}
			})
		}
	})
}

// A remote opens streams from the other end of a network.
type remote struct {
	t       *testing.T
	hub     *hubtest.Hub
	network *netnstest.Network
}

func (r remote) open(user string, receiveBuffer int) *ssetest.Stream {
	r.t.Helper()
	p, err := ssetest.OpenOn(r.dial(receiveBuffer), "user="+user)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// openHTTP2 opens a stream on a separate connection.
func (r remote) openHTTP2(user string) *ssetest.Stream {
	r.t.Helper()
	conn := r.dial(0)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols:   protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	r.t.Cleanup(transport.CloseIdleConnections)
	return hubtest.OpenOver(r.t, transport, r.hub.PublicURL("/events?user="+user))
}

func (r remote) dial(receiveBuffer int) (conn net.Conn) {
	r.t.Helper()
	var err error
	r.network.In(func() { conn, err = hubtest.DialSmall(r.hub.PublicAddr(), receiveBuffer) })
	if err != nil {
		r.t.Fatal(err)
	}
	conn.(*net.TCPConn).SetLinger(0) // without RST, an unacknowledged FIN would keep the namespace alive
	r.t.Cleanup(func() { conn.Close() })
	return conn
}
