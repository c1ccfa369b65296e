package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/alicebob/miniredis/v2"
	"github.com/labstack/echo/v4"

	"usercast/internal/app"
	"usercast/internal/flags"
	"usercast/internal/logqueue"
	"usercast/internal/systemd"
	"usercast/internal/unixsocket"
	"usercast/transport/redis"
)

type devCmd struct {
	app.Config
}

// devUser is the user in the printed commands. The demo page opens a stream of this user.
const devUser = "42"

func (c *devCmd) Run(ctx context.Context, stdout io.Writer, queue *logqueue.Writer) error {
	var errs flags.Errors
	c.Check(&errs)
	switch {
	case unixsocket.Is(c.Listen), unixsocket.Is(c.AdminListen), c.Listen == systemd.Address:
		errs.Add("listen", "dev serves pages to your browser and needs ports; use a loopback address such as 127.0.0.1:8080")
	case !flags.IsLoopback(c.Listen):
		errs.Add("listen", "dev does not authenticate users; use a loopback address such as 127.0.0.1:8080")
	}
	if c.Path == "/publish" || strings.HasPrefix(c.Path, "/demo/") {
		errs.Add("path", "%q is reserved for the demo page; use another path", c.Path)
	}
	if c.Feed != app.FeedPubSub {
		errs.Add("feed", "dev supports only pubsub; to try the stream feed, run serve with your own Redis")
	}
	if err := errs.Err(); err != nil {
		return err
	}
	app.WarnUnused(os.Stderr, c.UnusedByFeed())
	store, port, err := startEmbeddedRedis()
	if err != nil {
		return err
	}
	defer store.Close()
	server, err := redis.ParseServer("redis://"+store.Addr(), redis.ServerOptions{})
	if err != nil {
		return err
	}
	commands := redis.NewCommands(server)
	defer commands.Close()
	separator := string(rune(c.TopicSeparator.T))
	page := demoPage{Path: c.Path, Prefix: c.ChannelPrefix, Separator: separator, RedisPort: port, User: devUser}
	log := app.NewLog(&c.Config, queue)
	defer app.RedirectLog(log)()
	hub, err := app.New(c.Config, app.Parts{
		Redis:        []*redis.Server{server},
		Auth:         app.Authn{Authenticate: c.Insecure()},
		Navigate:     true,
		LoopbackHost: true,
		Mount: func(e *echo.Echo) {
			mountDemo(e, page, commands.Publish)
		},
		Logger:     log,
		Version:    version(),
		LogDropped: queue.Dropped,
	})
	if err != nil {
		return err
	}
	const topic, payload = "activity", `{"kind":"comment","id":7}`
	publish := []string{invocation(), "publish", "--redis", "redis://" + store.Addr()}
	if c.ChannelPrefix != app.DefaultPrefix {
		publish = append(publish, shellWord("--channel-prefix="+c.ChannelPrefix))
	}
	if c.TopicSeparator.T != redis.DefaultSeparator {
		publish = append(publish, shellWord("--topic-separator="+separator))
	}
	publish = append(publish, shellWord(devUser+separator+topic), shellWord(payload))
	banner := logqueue.New(stdout, nil) // the hub must not block when stdout is not read
	defer banner.Close(flushTimeout)
	fmt.Fprintf(banner, `usercast dev: a hub with an embedded Redis, for local development
  open     %s://%s/
  try      %s
  or       %s
  console  http://%s/
  metrics  http://%[5]s/metrics
`, c.Scheme(), hub.PublicAddr(), strings.Join(page.command(topic, payload), " "), strings.Join(publish, " "), hub.AdminAddr())
	if port != redisPort {
		fmt.Fprintf(banner, "  note     another program uses port %d; publish to port %d, as in the lines above\n", redisPort, port)
	}
	return hub.Run(ctx)
}

// redisPort is the default port of Redis.
const redisPort = 6379

// startEmbeddedRedis listens on the default port of Redis, or on the next free port. The server is miniredis, which is
// made for tests: it is good enough for local development, but not for a deployment.
func startEmbeddedRedis() (store *miniredis.Miniredis, port int, err error) {
	const tries = 100
	for port = redisPort; port < redisPort+tries; port++ {
		store = miniredis.NewMiniRedis()
		err = store.StartAddr(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return store, port, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, 0, fmt.Errorf("start the embedded Redis on 127.0.0.1: %w", err)
}
