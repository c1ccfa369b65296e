//go:build !linux

package sse

import (
	"errors"
	"net"
)

// A lot parks nothing here: it is made of Linux's epoll.
type lot struct{}

func newLot(func(int)) *lot { return nil }

func (*lot) park(*net.TCPConn, patience) (wire, error) { return nil, errors.ErrUnsupported }
