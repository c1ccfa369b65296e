package check

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/app"
	"usercast/internal/check/proxypath"
	"usercast/internal/flags"
	"usercast/transport/admin"
	"usercast/transport/redis"
)

// path returns the target of the inspection, and the identity of the stream's user as far as it is known. Call closePath
// after the inspection. Events are published to the first Redis server: every hub subscribes to all of them.
func (c *Check) path(ctx context.Context, authn *authentication, servers []*redis.Server) (path proxypath.Target, who auth.Identity, closePath func()) {
	path = proxypath.Target{
		URL: c.target, Header: c.header, Path: c.Path, PingInterval: c.PingInterval.T,
		Watch: c.Watch.T, Timeout: c.Timeout.T, AuthHint: authn.hint(),
		RejectHint: func(ctx context.Context, message string) string {
			return authn.rejectHint(ctx, c.target, c.header, message)
		},
	}
	who = auth.Identity{User: c.User}
	var unknown string
	switch {
	case c.User == "":
		who, unknown = authn.userOf(ctx, c.target, c.header)
	case c.Auth == app.AuthInsecure:
		if of, _ := authn.userOf(ctx, c.target, c.header); of.User != c.User {
			path.StreamUser = of.User
		}
	}
	path.User = c.User
	if unknown != "" {
		path.Unknown = unknown
		return path, auth.Identity{}, func() {}
	}
	path.Streams = func(ctx context.Context) (int, error) { return streamsOf(ctx, &c.HubConfig, who.User) }
	if len(servers) == 0 {
		return path, who, func() {}
	}
	commands := redis.NewCommands(servers[0])
	commands.PublishNearHubs(c.ControlChannelName())
	commands.UseChannels(c.Channels())
	path.Publish = func(ctx context.Context, topic, payload string) (int64, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if len(who.Topics) > 0 && !slices.Contains(who.Topics, topic) {
			topic = who.Topics[0] // the user does not receive other topics
		}
		channel, err := c.Channels().Name(hub.User(who.User), topic)
		if err != nil {
			return 0, err
		}
		if c.Feed == app.FeedStream {
			_, err = commands.Append(ctx, c.StreamKey, channel, payload)
			return -1, err
		}
		return commands.Publish(ctx, channel, payload)
	}
	return path, who, commands.Close
}

// streamsOf returns how many streams a user has at the hub, according to its admin listener.
func streamsOf(ctx context.Context, c *app.HubConfig, user string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	client, host := flags.Client(c.AdminListen)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/api/users/"+url.PathEscape(user), nil)
	if err != nil {
		return 0, err
	}
	if c.AdminTokenFile != "" {
		token, err := flags.ReadToken(c.AdminTokenFile)
		if err != nil {
			return 0, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var state struct{ Streams []admin.Stream }
	if err := json.NewDecoder(resp.Body).Decode(&state); err != nil || resp.StatusCode != http.StatusOK {
		return 0, errors.New("unexpected response from the admin listener")
	}
	return len(state.Streams), nil
}
