//go:build !linux

package sse

import (
	"errors"
	"net"
	"net/http"

	"usercast/hub"
)

// A poller watches nothing here: it is made of Linux's epoll.
type poller struct{}

func newPoller() *poller { return nil }

// Wait returns immediately.
func (*poller) Wait() {}

func (patience) adopt(*poller, *net.TCPConn) (transport, error) { return nil, errors.ErrUnsupported }

// newFastListener returns l: only a poller can answer requests without net/http.
func (h *Handler) newFastListener(l tcpListener, _ string, _ http.Handler, _ *connSettings) (net.Listener, error) {
	return l, nil
}

// takeFast is for requests that a fastListener has received.
func takeFast(*http.Request, *hub.Client) (transport, hub.Reason) { return nil, 0 }
