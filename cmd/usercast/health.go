package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"usercast/internal/flags"
	"usercast/internal/unixsocket"
	"usercast/transport/admin"
)

type healthCmd struct {
	AdminListen string `default:"127.0.0.1:8081" placeholder:"ADDRESS" help:"Address of the hub's admin listener, as passed to serve (default: ${default})."`
}

// Run returns nil if the hub is ready, and otherwise an error with the reason.
func (c *healthCmd) Run(stdout io.Writer) error {
	var errs flags.Errors
	errs.Listener("admin-listen", c.AdminListen)
	if err := errs.Err(); err != nil {
		return err
	}
	client, host := flags.Client(c.AdminListen)
	at := host
	if unixsocket.Is(c.AdminListen) {
		at = c.AdminListen
	}
	const timeout = 3 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(r)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("no response from %s: connection refused; check that the hub is running and uses this --admin-listen", at)
		}
		switch ue := new(url.Error); {
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("no response from %s within %s", at, timeout)
		case errors.Is(err, io.EOF):
			return fmt.Errorf("no response from %s: connection closed without a response", at)
		case errors.As(err, &ue):
			err = ue.Err
		}
		return fmt.Errorf("no response from %s: %w", at, err)
	}
	defer resp.Body.Close()
	var status admin.Status
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&status); err != nil {
		return fmt.Errorf("%s responded with %s, but it is not the admin listener of a hub", at, resp.Status)
	}
	if !status.Ready {
		return fmt.Errorf("%s is not ready: %s", at, status.Why)
	}
	_, err = fmt.Fprintln(stdout, "ready")
	return err
}
