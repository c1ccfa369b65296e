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

// A reloader reloads what can change while the hub runs. An item that cannot be read, or is
// invalid, keeps its previous value. Open streams are not affected: the new
// values are for new connections.
type reloader struct {
	// Immutable.
	reread   func() (*HubConfig, error) // parses the command line again
	started  *HubConfig                 // with which the hub was started
	items    []reloadItem
	files    []string // all that are read
	interval time.Duration
	manager  *systemd.Manager
	log      *slog.Logger

	// Owned by run.
	settings *HubConfig    // the last that could be read
	seen     []fs.FileInfo // of files, when they were last read; nil: missing
}

// A reloadItem is reloaded as a whole, or keeps its value.
type reloadItem struct {
	name string // in the log
	// reload gets the current settings and reports whether the value has changed.
	reload func(ctx context.Context, settings *HubConfig) (changed bool, err error)
	// onSignal: not when a file changes, because reload sends a request to another server.
	onSignal bool
	// inFile: the value is in the settings file only.
	inFile bool
}

// newReloader is for the config with which the app was started.
func newReloader(c *HubConfig, reread func() (*HubConfig, error), a *App, items ...reloadItem) *reloader {
	r := &reloader{reread: reread, started: c, settings: c, items: items, interval: c.ReloadEvery.T, manager: a.parts.Manager, log: a.log}
	for _, file := range append([]string{c.EnvFile, c.AdminTokenFile, c.JWTKeyFile, c.RedisPasswordFile, c.TLSCert, c.TLSKey}, c.JWTSecretFile...) {
		if file != "" {
			r.files = append(r.files, file)
		}
	}
	r.seen = statFiles(r.files)
	return r
}

// run reloads everything at each SIGHUP, and when a file has changed, until ctx is done.
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
			r.seen = statFiles(r.files) // before they are read: a change in between is another change
			r.reload(ctx, true)
		case <-ticks:
			if now := statFiles(r.files); !slices.EqualFunc(now, r.seen, isUnchanged) {
				r.seen = now
				r.reload(ctx, false)
			}
		}
	}
}

// reload reloads all items and logs one line with the result, and one more per
// error.
func (r *reloader) reload(ctx context.Context, signaled bool) {
	if r.manager != nil {
		r.manager.Reloading()
		defer r.manager.Reloaded()
	}
	var changed, unchanged, kept []string
	keep := func(what string, err error) {
		kept = append(kept, what)
		r.log.Warn("cannot be read anew, the one before is kept", slog.String("what", what), slog.Any("error", err))
	}
	fileFailed := false
	if r.started.EnvFile != "" {
		if fresh, err := r.reread(); err != nil {
			fileFailed = true
			keep("settings file", err)
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
			keep(item.name, err)
		case isNew:
			changed = append(changed, item.name)
		default:
			unchanged = append(unchanged, item.name)
		}
	}
	r.log.Info("read anew", slog.String("changed", strings.Join(changed, ", ")),
		slog.String("unchanged", strings.Join(unchanged, ", ")), slog.String("kept", strings.Join(kept, ", ")))
	restart := r.settings.Settings.Changed(r.started.Settings)
	restart = slices.DeleteFunc(restart, func(name string) bool { return slices.Contains(reloadable, name) })
	if len(restart) > 0 {
		r.log.Warn("settings have changed that need a restart", slog.String("settings", strings.Join(restart, ", ")))
	}
}

// reloadable are the variables that need no restart.
var reloadable = []string{flags.Variable("allow-origin"), flags.Variable("log-level")}

// statFiles returns the state of each file; nil: it is missing. It follows symbolic links: Kubernetes
// replaces one for a whole directory.
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
