package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"usercast/internal/app"
	"usercast/internal/flags"
	"usercast/transport/redis"
)

// commands is the grammar of the command line. Every flag can also be set in the environment, as USERCAST_<FLAG>.
type commands struct {
	Serve   serveCmd   `cmd:"" help:"Run the hub next to your app and its Redis."`
	Dev     devCmd     `cmd:"" help:"Run the hub with an embedded Redis and a demo page, for local development."`
	Publish publishCmd `cmd:"" help:"Publish one message to a user, a group or all users."`
	Check   checkCmd   `cmd:"" help:"Check the configuration, Redis and the proxy path, and report what to fix."`
	Bench   benchCmd   `cmd:"" help:"Load-test a hub: open streams, publish messages, and report delivery, latency and resource usage."`
	Health  healthCmd  `cmd:"" help:"Check whether a running hub is ready; for container images without a shell."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// hubConfig returns the configuration of a command that runs a hub, and nil for other commands.
func (c *commands) hubConfig(command string) *app.Config {
	switch command {
	case "serve":
		return &c.Serve.Config
	case "dev":
		return &c.Dev.Config
	}
	return nil
}

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

// flushTimeout limits how long the program waits at its end until its log is written. A reader that keeps up needs much
// less time, and service managers send SIGKILL much later.
const flushTimeout = time.Second

func main() {
	app.TuneGC()
	redis.DisableClientLog() // the feeds log its errors
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes a command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var cli commands
	exited := -1
	command, err := parse(&cli, args,
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.BindTo(stdin, (*io.Reader)(nil)),
		kong.BindTo(stdout, (*io.Writer)(nil)),
		kong.Bind(commandLine(args), errorOutput{stderr}),
	)
	if exited >= 0 { // --help
		return exited
	}
	if err != nil {
		return report(stderr, flags.UsageError{Err: plain(err)})
	}
	// A hub must not block when its log is not read. Other commands may.
	flush := func() {}
	if c := cli.hubConfig(command.Selected().Name); c != nil {
		ignorePipes()
		queue := app.NewLogQueue(c, stderr)
		flush = func() { queue.Close(flushTimeout) }
		stderr = queue
		command.Bind(queue)
	}
	defer flush()
	if command.Selected().Name != "serve" && commandLine(args).holdsPassword() { // serve logs the warning
		fmt.Fprintln(stderr, "usercast: warning: "+passwordVisible)
	}
	// Only commands with a parameter for the context handle signals. A signal ends the others.
	stop := func() {}
	defer func() { stop() }()
	if err := command.BindToProvider(func() (ctx context.Context, err error) {
		ctx, stop = signals(func() {
			fmt.Fprintln(stderr, "usercast: received a second signal, exiting immediately")
			flush()
			os.Exit(exitFailure)
		})
		return ctx, nil
	}); err != nil {
		panic(err) // the function has the wrong signature
	}
	return report(stderr, command.Run())
}

// terminal returns standard error if it is a terminal, and nil otherwise.
func terminal() io.Writer {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	return os.Stderr
}

// errorOutput is standard error, for commands that print hints.
type errorOutput struct{ io.Writer }

// parse reads the command line, the environment and the file of --env-file.
func parse(cli *commands, args []string, options ...kong.Option) (*kong.Context, error) {
	settings := new(flags.EnvFile)
	cli.Serve.Settings, cli.Check.Settings = settings, settings
	parser, err := kong.New(cli, append(options,
		kong.Name("usercast"),
		kong.Description("Delivers the messages that an app publishes in Redis to the open browsers of each user, as server-sent events."),
		kong.DefaultEnvars(strings.TrimSuffix(flags.EnvPrefix, "_")),
		kong.Vars(app.FlagDefaults),
		kong.Resolvers(settings),
	)...)
	if err != nil {
		panic(err) // the struct tags are wrong
	}
	parsed, err := parser.Parse(args)
	if err == nil {
		trimLists(parsed.Flags())
	}
	return parsed, err
}

// trimLists removes spaces around the values of flags that accept a list, such as USERCAST_ALLOW_ORIGIN='A, B'. Flags whose
// values may contain a comma accept only one per occurrence (sep:"none").
func trimLists(all []*kong.Flag) {
	for _, flag := range all {
		if list, ok := flag.Target.Interface().([]string); ok && flag.Tag.Sep != -1 {
			for i, value := range list {
				list[i] = strings.TrimSpace(value)
			}
		}
	}
}
