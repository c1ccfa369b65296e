package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"usercast/internal/app"
	"usercast/internal/load"
)

// Run opens streams and publishes to them. It writes a report to out, warnings to warnings, and a progress bar to progress,
// which may be nil. The error joins one error per failure. It is nil if all streams opened, and if each message arrived
// once and in order or was announced as lost.
func Run(ctx context.Context, c *Config, out, warnings, progress io.Writer) error {
	cfg, server, err := c.load(ctx)
	if err != nil {
		return err
	}
	cfg.Dial = func(ctx context.Context) (load.Publisher, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		app.WarnUnused(warnings, app.UnusedStreamKey(c.Feed, c.StreamKey))
		return dial(ctx, c, server)
	}
	finish := func() {}
	if progress != nil {
		cfg.Progress, finish = newBar(progress)
	}
	report, err := load.Run(ctx, cfg)
	finish()
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		err = writeText(out, report)
	}
	var faults []error
	for _, f := range report.Faults {
		faults = append(faults, errors.New(f))
	}
	return errors.Join(append(faults, err)...)
}
