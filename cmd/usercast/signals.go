package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"usercast/internal/app"
)

// errTerminate is the cause of a context that SIGTERM has canceled.
var errTerminate = errors.New("received SIGTERM")

// signals returns a context that the first SIGTERM or SIGINT cancels, with the cause errTerminate or app.ErrInterrupt. A
// second signal calls second.
func signals(second func()) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	c := make(chan os.Signal, 2) // the second must not be lost while the first is handled
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		sig, open := <-c
		if !open {
			return
		}
		if sig == syscall.SIGTERM {
			cancel(errTerminate)
		} else {
			cancel(app.ErrInterrupt)
		}
		if _, open = <-c; open {
			second()
		}
	}()
	return ctx, func() {
		signal.Stop(c)
		close(c)
		cancel(nil)
	}
}
