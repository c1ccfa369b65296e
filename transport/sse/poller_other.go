//go:build !linux

package sse

import (
	"errors"
	"net"
	"net/http"
	"time"

	"usercast/hub"
)

// Front returns l: it is for Linux.
func (h *Handler) Front(l net.Listener, _ string, _ http.Handler) (net.Listener, error) {
	return l, nil
}

// takeSocket is for what a front has accepted.
func takeSocket(*http.Request, *hub.Client) (wire, hub.Reason) { return nil, 0 }

// A lot parks nothing here: it is made of Linux's epoll.
type lot struct{}

func newLot(time.Duration) *lot { return nil }

func (*lot) wait(bool) {}

func (*lot) park(*net.TCPConn, *hub.Client) (wire, error) { return nil, errors.ErrUnsupported }
