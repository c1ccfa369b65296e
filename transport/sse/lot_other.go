//go:build !linux

package sse

import (
	"errors"
	"net"
	"net/http"

	"usercast/hub"
)

// Front returns l: it is for Linux.
func (h *Handler) Front(l net.Listener, _ string, _ http.Handler) (net.Listener, error) {
	return l, nil
}

// takeSocket is for what a front has accepted.
func takeSocket(*http.Request, patience) (wire, hub.Cause) { return nil, 0 }

// A lot parks nothing here: it is made of Linux's epoll.
type lot struct{}

func newLot() *lot { return nil }

func (*lot) wait(bool) {}

func (*lot) park(*net.TCPConn, patience) (wire, error) { return nil, errors.ErrUnsupported }
