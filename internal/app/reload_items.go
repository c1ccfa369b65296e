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
	"usercast/transport/sse"
)

// reloadItems returns the items to reload in a hub that was started with c.
func reloadItems(c *HubConfig, a *App, level *slog.LevelVar, servers []*redis.Server, tokens *auth.JWT) (items []reloadItem) {
	if c.EnvFile != "" {
		items = append(items,
			reloadItem{name: "origins", inFile: true, reload: reloadOrigins(c.AllowOrigin, a.streams.AllowOrigins)},
			reloadItem{name: "log level", inFile: true, reload: reloadLevel(level)})
	}
	if a.certificate != nil {
		items = append(items, reloadItem{name: "certificate", reload: func(context.Context, *HubConfig) (bool, error) { return a.certificate.reload() }})
	}
	if c.AdminTokenFile != "" {
		items = append(items, reloadItem{name: "admin token", reload: reloadSecret(flags.ReadToken, c.AdminTokenFile, a.admin.token.get(), a.admin.token.set)})
	}
	if c.APITokenFile != "" {
		items = append(items, reloadItem{name: "api token", reload: reloadSecret(flags.ReadToken, c.APITokenFile, a.admin.apiToken.get(), a.admin.apiToken.set)})
	}
	switch {
	case tokens == nil:
	case len(c.JWTJWKSURL) > 0:
		items = append(items, reloadItem{name: "jwk set", onSignal: true, reload: func(ctx context.Context, _ *HubConfig) (bool, error) { return tokens.Refetch(ctx) }})
	default:
		items = append(items, reloadItem{name: "jwt keys", reload: reloadKeys(c, tokens)})
	}
	if c.RedisPasswordFile != "" {
		items = append(items, reloadItem{name: "redis password", reload: reloadSecret(flags.ReadSecret, c.RedisPasswordFile, c.password, func(secret string) {
			for _, s := range servers {
				s.SetPassword(secret)
			}
		})})
	}
	if c.RedisSentinelPasswordFile != "" {
		items = append(items, reloadItem{name: "redis sentinel password", reload: reloadSecret(flags.ReadSecret, c.RedisSentinelPasswordFile, c.sentinelPassword, func(secret string) {
			for _, s := range servers {
				s.SetSentinelPassword(secret)
			}
		})})
	}
	if c.RedisTLSCA != "" || c.RedisTLSCert != "" {
		items = append(items, reloadItem{name: "redis certificate", reload: reloadRedisTLS(servers)})
	}
	return items
}

// reloadRedisTLS returns the reload function of the TLS files of Redis, which all servers share.
func reloadRedisTLS(servers []*redis.Server) func(context.Context, *HubConfig) (bool, error) {
	return func(context.Context, *HubConfig) (changed bool, err error) {
		for _, s := range servers {
			var isNew bool
			isNew, err = s.ReloadTLS()
			changed = changed || isNew
		}
		return changed, err
	}
}

func reloadOrigins(current []string, allow func([]string)) func(context.Context, *HubConfig) (bool, error) {
	return func(_ context.Context, settings *HubConfig) (bool, error) {
		for _, origin := range settings.AllowOrigin {
			if err := sse.ValidateOrigin(origin); err != nil {
				return false, fmt.Errorf("%q %w", origin, err)
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

func reloadLevel(level *slog.LevelVar) func(context.Context, *HubConfig) (bool, error) {
	return func(_ context.Context, settings *HubConfig) (bool, error) {
		named, err := parseLevel(settings.LogLevel)
		if err != nil {
			return false, err
		}
		changed := named != level.Level()
		level.Set(named)
		return changed, nil
	}
}

// reloadSecret returns the reload function of a file with one secret, which read returns.
func reloadSecret(read func(file string) (string, error), file, current string, use func(secret string)) func(context.Context, *HubConfig) (bool, error) {
	return func(context.Context, *HubConfig) (bool, error) {
		secret, err := read(file)
		if err != nil || secret == current {
			return false, err
		}
		current = secret
		use(secret)
		return true, nil
	}
}

func reloadKeys(c *HubConfig, tokens *auth.JWT) func(context.Context, *HubConfig) (bool, error) {
	current := c.keys
	return func(_ context.Context, settings *HubConfig) (bool, error) {
		keys, err := c.readKeys(settings.Settings)
		if err != nil || reflect.DeepEqual(keys, current) {
			return false, err
		}
		if len(keys.Secret) == 0 && len(keys.KeyPEM) == 0 {
			return false, errors.New("no jwt secret or key configured")
		}
		if err := tokens.SetKeys(keys); err != nil {
			return false, err
		}
		current = keys
		return true, nil
	}
}
