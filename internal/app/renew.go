package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"

	"usercast/auth"
	"usercast/internal/flags"
	"usercast/transport/redis"
)

// items are what a reloader reads anew for a hub that was made of c.
func (c *HubConfig) items(a *App, level *slog.LevelVar, servers []*redis.Server, tokens *auth.JWT) (items []item) {
	if c.EnvFile != "" {
		items = append(items,
			item{name: "origins", inFile: true, renew: renewOrigins(c.AllowOrigin, a.streams.AllowOrigins)},
			item{name: "log level", inFile: true, renew: renewLevel(level)})
	}
	if a.shown != nil {
		items = append(items, item{name: "certificate", renew: func(context.Context, *HubConfig) (bool, error) { return a.shown.reload() }})
	}
	if c.AdminTokenFile != "" {
		items = append(items, item{name: "admin token", renew: renewSecret(c.AdminTokenFile, a.adminToken.Load().(string), func(secret string) { a.adminToken.Store(secret) })})
	}
	switch {
	case tokens == nil:
	case c.JWTJWKSURL != "":
		items = append(items, item{name: "jwk set", asks: true, renew: func(ctx context.Context, _ *HubConfig) (bool, error) { return tokens.Refetch(ctx) }})
	default:
		items = append(items, item{name: "jwt keys", renew: c.renewKeys(tokens)})
	}
	if c.RedisPasswordFile != "" {
		items = append(items, item{name: "redis password", renew: renewSecret(c.RedisPasswordFile, c.password, func(secret string) {
			for _, s := range servers {
				s.SetPassword(secret)
			}
		})})
	}
	return items
}

func renewOrigins(current []string, allow func([]string)) func(context.Context, *HubConfig) (bool, error) {
	return func(_ context.Context, settings *HubConfig) (bool, error) {
		for _, origin := range settings.AllowOrigin {
			if fault := originFault(origin); fault != "" {
				return false, fmt.Errorf("%q %s", origin, fault)
			}
		}
		if slices.Equal(settings.AllowOrigin, current) {
			return false, nil
		}
		current = settings.AllowOrigin
		allow(current)
		return true, nil
	}
}

func renewLevel(level *slog.LevelVar) func(context.Context, *HubConfig) (bool, error) {
	return func(_ context.Context, settings *HubConfig) (bool, error) {
		named, err := parseLevel(settings.LogLevel)
		if err != nil {
			return false, fmt.Errorf("%q is none of debug, info, warn, error", settings.LogLevel)
		}
		changed := named != level.Level()
		level.Set(named)
		return changed, nil
	}
}

// renewSecret is for a secret that is alone in its file.
func renewSecret(file, current string, use func(secret string)) func(context.Context, *HubConfig) (bool, error) {
	return func(context.Context, *HubConfig) (bool, error) {
		secret, err := flags.ReadSecret(file)
		if err != nil || secret == current {
			return false, err
		}
		current = secret
		use(secret)
		return true, nil
	}
}

func (c *HubConfig) renewKeys(tokens *auth.JWT) func(context.Context, *HubConfig) (bool, error) {
	current := c.keys
	return func(_ context.Context, settings *HubConfig) (bool, error) {
		keys, err := c.readKeys(settings.Settings)
		if err != nil || reflect.DeepEqual(keys, current) {
			return false, err
		}
		if len(keys.Secret) == 0 && len(keys.KeyPEM) == 0 {
			return false, errors.New("there is none")
		}
		if err := tokens.SetKeys(keys); err != nil {
			return false, err
		}
		current = keys
		return true, nil
	}
}
