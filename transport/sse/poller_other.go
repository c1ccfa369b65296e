//go:build !linux

package sse

import (
	"errors"
	"net"
	"net/http"

	"usercast/hub"
)

// A poller does nothing on this system, because it needs epoll of Linux.
type poller struct{}

func newPoller() *poller { return nil }

// Wait returns immediately.
func (*poller) Wait() {}

func (patience) adopt(*poller, socket) (transport, error) { return nil, errors.ErrUnsupported }

// newFastListener returns l, because answering requests without net/http needs the poller.
func (h *Handler) newFastListener(l socketListener, _ string, _ http.Handler, _ *connSettings) (net.Listener, error) {
	return l, nil
}

// takeFast returns nil, because fastListener exists only on Linux.
func takeFast(*http.Request, *hub.Client) (transport, hub.Reason) { return nil, 0 }
