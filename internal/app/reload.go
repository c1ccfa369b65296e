package app

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"usercast/internal/flags"
	"usercast/internal/systemd"
)

// A reloader reloads the values that can change while the hub is running. An item that cannot be read, or is invalid, keeps
// its previous value. New values apply to new connections; open streams are not affected.
type reloader struct {
	// Immutable.
	reread   func() (*HubConfig, error) // parses the command line again
	started  *HubConfig                 // the config at start
	items    []reloadItem
	check    func()   // logs risks of the new values
	files    []string // all files that are reloaded
	interval time.Duration
	manager  *systemd.Manager
	log      *slog.Logger

	// Owned by run.
	settings *HubConfig    // the last valid config
	seen     []fs.FileInfo // state of files when they were last read; nil for a missing file
}

// A reloadItem is a value that is reloaded independently of the others.
type reloadItem struct {
	name string // for the log
	// reload receives the current settings and reports whether the value has changed.
	reload func(ctx context.Context, settings *HubConfig) (changed bool, err error)
	// onSignal items are reloaded on SIGHUP only, because reload sends a request to another server.
	onSignal bool
	// inFile items can be set in the env file only. They are skipped if the file cannot be read.
	inFile bool
}

// newReloader returns a reloader for an app that was started with c.
func newReloader(c *HubConfig, reread func() (*HubConfig, error), a *App, items ...reloadItem) *reloader {
	r := &reloader{reread: reread, started: c, settings: c, items: items, interval: c.ReloadEvery.T, manager: a.parts.Manager, log: a.log}
	r.check = func() { a.admin.checkTokens(a.log) }
	for _, file := range append([]string{c.EnvFile, c.AdminTokenFile, c.APITokenFile, c.JWTKeyFile, c.RedisPasswordFile, c.RedisSentinelPasswordFile,
		c.RedisTLSCA, c.RedisTLSCert, c.RedisTLSKey, c.TLSCert, c.TLSKey}, c.JWTSecretFile...) {
		if file != "" {
			r.files = append(r.files, file)
		}
	}
	r.seen = statFiles(r.files)
	return r
}

// run reloads all items on SIGHUP or after a file has changed, until ctx is done.
func (r *reloader) run(ctx context.Context, hangUps <-chan os.Signal) {
	var ticks <-chan time.Time
	if r.interval > 0 {
		ticker := time.NewTicker(r.interval)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangUps:
			r.seen = statFiles(r.files) // before reading the files, so that a change in between is detected later
			r.reload(ctx, true)
		case <-ticks:
			if now := statFiles(r.files); !slices.EqualFunc(now, r.seen, isUnchanged) {
				r.seen = now
				r.reload(ctx, false)
			}
		}
	}
}

// reload reloads all items. It logs one line with the result, and one line per error.
func (r *reloader) reload(ctx context.Context, signaled bool) {
	if r.manager != nil {
		r.manager.Reloading()
		defer r.manager.Reloaded()
	}
	var changed, unchanged, failed []string
	fail := func(item string, err error) {
		failed = append(failed, item)
		r.log.Warn("reload failed, keeping previous value", slog.String("item", item), slog.Any("error", err))
	}
	fileFailed := false
	if r.started.EnvFile != "" {
		if fresh, err := r.reread(); err != nil {
			fileFailed = true
			fail("env file", err)
		} else {
			r.settings = fresh
		}
	}
	for _, item := range r.items {
		if item.onSignal && !signaled || item.inFile && fileFailed {
			continue
		}
		switch isNew, err := item.reload(ctx, r.settings); {
		case err != nil:
			fail(item.name, err)
		case isNew:
			changed = append(changed, item.name)
		default:
			unchanged = append(unchanged, item.name)
		}
	}
	r.check()
	result := "configuration reloaded"
	if len(changed) == 0 && len(failed) > 0 {
		result = "configuration not reloaded"
	}
	r.log.Info(result, slog.String("changed", strings.Join(changed, ", ")),
		slog.String("unchanged", strings.Join(unchanged, ", ")), slog.String("failed", strings.Join(failed, ", ")))
	restart := r.settings.Settings.Changed(r.started.Settings)
	restart = slices.DeleteFunc(restart, func(name string) bool { return slices.Contains(reloadable, name) })
	if len(restart) > 0 {
		r.log.Warn("changed settings require a restart", slog.String("settings", strings.Join(restart, ", ")))
	}
}

// reloadable lists the variables that can change without a restart.
var reloadable = []string{flags.Variable("allow-origin"), flags.Variable("log-level")}

// statFiles returns the state of each file, and nil for a missing file. It follows symbolic links, because Kubernetes
// updates a directory by replacing a link.
func statFiles(names []string) []fs.FileInfo {
	files := make([]fs.FileInfo, len(names))
	for i, name := range names {
		if info, err := os.Stat(name); err == nil {
			files[i] = info
		}
	}
	return files
}

func isUnchanged(now, before fs.FileInfo) bool {
	if now == nil || before == nil {
		return now == before
	}
	return os.SameFile(now, before) && now.Size() == before.Size() && now.ModTime().Equal(before.ModTime())
}
