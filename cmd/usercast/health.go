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
	"usercast/transport/admin"
)

type healthCmd struct {
	AdminListen string `default:"127.0.0.1:8081" placeholder:"HOST:PORT" help:"Address of the hub's admin listener, as passed to serve (default: ${default})."`
}

// hubClient ignores HTTP_PROXY: it connects to the hub directly.
var hubClient = &http.Client{Transport: &http.Transport{}}

// Run returns nil if the hub is ready, and otherwise an error with the reason.
func (c *healthCmd) Run(stdout io.Writer) error {
	var errs flags.Errors
	errs.Address("admin-listen", c.AdminListen)
	if err := errs.Err(); err != nil {
		return err
	}
	const timeout = 3 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+flags.Dialable(c.AdminListen)+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := hubClient.Do(r)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("no response from %s: connection refused; check that the hub is running and uses this --admin-listen", r.URL.Host)
		}
		switch ue := new(url.Error); {
		case errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("no response from %s within %s", r.URL.Host, timeout)
		case errors.Is(err, io.EOF):
			return fmt.Errorf("no response from %s: connection closed without a response", r.URL.Host)
		case errors.As(err, &ue):
			err = ue.Err
		}
		return fmt.Errorf("no response from %s: %w", r.URL.Host, err)
	}
	defer resp.Body.Close()
	var status admin.Status
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&status); err != nil {
		return fmt.Errorf("%s responded with %s, but it is not the admin listener of a hub", r.URL.Host, resp.Status)
	}
	if !status.Ready {
		return fmt.Errorf("%s is not ready: %s", r.URL.Host, status.Why)
	}
	_, err = fmt.Fprintln(stdout, "ready")
	return err
}
