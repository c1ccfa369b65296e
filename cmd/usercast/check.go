package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"

	"usercast/internal/check"
)

type checkCmd struct{ check.Config }

// Run returns nil if no finding must be fixed. Warnings and notes are not errors.
func (c *checkCmd) Run(ctx context.Context, parsed *kong.Context, args commandLine, stdout io.Writer) error {
	run, err := check.New(c.Config, check.Program{Invocation: invocation(), Version: version(), Variables: variables(parsed.Model.Node)})
	if err != nil {
		return err
	}
	if c.URL != "" && args.holdsHeader() {
		fmt.Fprintln(os.Stderr, "usercast: warning: "+headerVisible)
	}
	return run.Run(ctx, stdout, terminal())
}

// variables returns the environment variables of all flags of all commands.
func variables(node *kong.Node) (names []string) {
	for _, command := range node.Children {
		for _, flag := range command.Flags {
			names = append(names, flag.Envs...)
		}
	}
	return names
}
