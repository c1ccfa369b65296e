package main

import (
	"context"

	"usercast/internal/app"
	"usercast/internal/logqueue"
)

type serveCmd struct{ app.HubConfig }

func (c *serveCmd) Run(ctx context.Context, args commandLine, queue *logqueue.Writer) error {
	hangUps, stop := hangUps() // first, because SIGHUP ends the process until then
	defer stop()
	p := app.Process{
		Log:     queue,
		HangUps: hangUps,
		Reread:  func() (*app.HubConfig, error) { return parseServe(args) },
		Version: version(),
	}
	if args.holdsPassword() {
		p.Warnings = []string{passwordVisible}
	}
	return app.Serve(ctx, &c.HubConfig, p)
}

// parseServe parses a command line of serve, with the current content of the file of --env-file.
func parseServe(args []string) (*app.HubConfig, error) {
	var cli commands
	if _, err := parse(&cli, args); err != nil {
		return nil, plain(err)
	}
	return &cli.Serve.HubConfig, cli.Serve.Settings.Err()
}
