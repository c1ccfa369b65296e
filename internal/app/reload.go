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

// A reloader reads anew what may change while the hub runs. What cannot be read, or is
// wrong, stays as it was, each item for itself. Nothing that is open is touched: the new
// values are for whoever asks next.
type reloader struct {
	// Immutable.
	reread  func() (*HubConfig, error) // parses the command line again
	started *HubConfig                 // with which the hub was made
	items   []item
	files   []string // all that is read
	every   time.Duration
	manager *systemd.Manager
	log     *slog.Logger

	// Owned by run.
	settings *HubConfig    // the last that could be read
	seen     []fs.FileInfo // of files, when they were last read; nil: missing
}

// An item is what is read anew as one: all of it is believed, or nothing.
type item struct {
	name string // as the log has it
	// renew gets the settings of now, and reports whether the item's value is another one.
	renew func(ctx context.Context, settings *HubConfig) (changed bool, err error)
	// asks: it costs somebody else a request, so that only a signal is worth it.
	asks bool
	// inFile: there is nothing to read but in the settings file.
	inFile bool
}

// newReloader is for a command that the app was made of.
func newReloader(c *HubConfig, reread func() (*HubConfig, error), a *App, items ...item) *reloader {
	r := &reloader{reread: reread, started: c, settings: c, items: items, every: c.ReloadEvery.T, manager: a.parts.Manager, log: a.log}
	for _, file := range append([]string{c.EnvFile, c.AdminTokenFile, c.JWTKeyFile, c.RedisPasswordFile, c.TLSCert, c.TLSKey}, c.JWTSecretFile...) {
		if file != "" {
			r.files = append(r.files, file)
		}
	}
	r.seen = r.look()
	return r
}

// run reads everything anew at each hang-up, and when a file was changed, until ctx is done.
func (r *reloader) run(ctx context.Context, hangUps <-chan os.Signal) {
	var look <-chan time.Time
	if r.every > 0 {
		ticker := time.NewTicker(r.every)
		defer ticker.Stop()
		look = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangUps:
			r.seen = r.look() // before they are read: what changes meanwhile is another change
			r.reload(ctx, true)
		case <-look:
			if now := r.look(); !slices.EqualFunc(now, r.seen, isUnchanged) {
				r.seen = now
				r.reload(ctx, false)
			}
		}
	}
}

// look is how the files are now.
func (r *reloader) look() []fs.FileInfo {
	infos := make([]fs.FileInfo, len(r.files))
	for i, name := range r.files {
		if info, err := os.Stat(name); err == nil {
			infos[i] = info
		}
	}
	return infos
}

// reload reads everything anew, and says in one line what came of it, with a line more
// for each fault.
func (r *reloader) reload(ctx context.Context, asked bool) {
	if r.manager != nil {
		r.manager.Reloading()
		defer r.manager.Reloaded()
	}
	var changed, unchanged, kept []string
	keep := func(what string, err error) {
		kept = append(kept, what)
		r.log.Warn("cannot be read anew, the one before is kept", slog.String("what", what), slog.Any("error", err))
	}
	unread := false
	if r.started.EnvFile != "" {
		if fresh, err := r.reread(); err != nil {
			unread = true
			keep("settings file", err)
		} else {
			r.settings = fresh
		}
	}
	for _, item := range r.items {
		if item.asks && !asked || item.inFile && unread {
			continue
		}
		switch differs, err := item.renew(ctx, r.settings); {
		case err != nil:
			keep(item.name, err)
		case differs:
			changed = append(changed, item.name)
		default:
			unchanged = append(unchanged, item.name)
		}
	}
	r.log.Info("read anew", slog.String("changed", strings.Join(changed, ", ")),
		slog.String("unchanged", strings.Join(unchanged, ", ")), slog.String("kept", strings.Join(kept, ", ")))
	later := r.settings.Settings.Changed(r.started.Settings)
	later = slices.DeleteFunc(later, func(name string) bool { return slices.Contains(renewable, name) })
	if len(later) > 0 {
		r.log.Warn("settings have changed that need a restart", slog.String("settings", strings.Join(later, ", ")))
	}
}

// renewable are the variables that need no restart.
var renewable = []string{flags.Variable("allow-origin"), flags.Variable("log-level")}
