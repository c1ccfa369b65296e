package main

import (
	"context"
	"io"
	"os"

	"usercast/internal/bench"
)

type benchCmd struct{ bench.Config }

func (c *benchCmd) Run(ctx context.Context, stdout io.Writer) error {
	return bench.Run(ctx, &c.Config, stdout, os.Stderr, terminal())
}
