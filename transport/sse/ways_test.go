package sse_test

import (
	"net"
	"net/http"
	"testing"
	"time"

	"usercast/auth"
	"usercast/hub"
)

// ways runs a test with each way in which a stream over HTTP/1.1 is accepted and written
// to. A page cannot tell them apart; where they are not Linux's they are all the same.
func ways(t *testing.T, c config, test func(t *testing.T, s *site)) {
	for name, choose := range map[string]func(*config){
		"parked":   func(*config) {},
		"portable": func(c *config) { c.sse.Portable = true },
		"front":    func(c *config) { c.front = true },
	} {
		t.Run(name, func(t *testing.T) {
			c := c
			choose(&c)
			test(t, serve(t, c))
		})
	}
}

// A browser may leave before it has an answer, and with something to be replayed there
// is a write behind the head that has failed.
func TestBrowserThatLeavesBeforeItsHead(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn){
		"FIN":           func(conn *net.TCPConn) { conn.Close() },
		"FIN of a half": func(conn *net.TCPConn) { conn.CloseWrite() },
		"RST":           func(conn *net.TCPConn) { conn.SetLinger(0); conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			asked, left := make(chan bool), make(chan bool)
			c := config{}
			c.sse.PingInterval, c.sse.WriteTimeout = time.Hour, time.Hour
			c.sse.Authenticate = func(r *http.Request) (auth.Identity, error) {
				asked <- true
				<-left
				return auth.Insecure(r)
			}
			ways(t, c, func(t *testing.T, s *site) {
				p := dial(t, s, request("user=42", "Last-Event-ID: unknown"))
				<-asked
				leave(p.conn.(*net.TCPConn))
				left <- true
				s.wantEnd(hub.ErrClosed)
			})
		})
	}
}
