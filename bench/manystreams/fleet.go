package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"sync"

	"usercast/bench/internal/process"
	"usercast/internal/load"
)

// A hub is a process of usercast serve.
type hub struct {
	*process.Process
	public, admin string // addresses
}

// measure performs one run with new processes.
func (m *million) measure(ctx context.Context, total int) (row, error) {
	redis := m.address()
	server, err := process.StartRedis(ctx, m.dir, redis)
	if err != nil {
		return row{}, err
	}
	defer server.Stop()
	var hubs []hub
	for range (total+m.perHub-1)/m.perHub + 1 {
		h, err := m.startHub(ctx, redis, len(hubs))
		if err != nil {
			return row{}, err
		}
		defer h.Stop()
		hubs = append(hubs, h)
	}
	bystander, hubs := hubs[0], hubs[1:]
	before, err := bystander.cpu(ctx)
	if err != nil {
		return row{}, err
	}
	reports, err := m.loadAll(ctx, redis, hubs, total)
	if err != nil {
		return row{}, err
	}
	after, err := bystander.cpu(ctx)
	if err != nil {
		return row{}, err
	}
	return newRow(reports, after-before), nil
}

// startHub starts a hub. It returns when the hub has subscribed.
func (m *million) startHub(ctx context.Context, redis string, i int) (hub, error) {
	h := hub{public: m.address(), admin: m.address()}
	args := []string{"serve", "--auth", "insecure", "--listen", h.public, "--admin-listen", h.admin,
		"--redis", "redis://" + redis}
	p, err := process.Start(ctx, m.dir, "hub"+strconv.Itoa(i), m.program, args, func() bool {
		resp, err := http.Get("http://" + h.admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	h.Process = p
	return h, err
}

// cpu returns the CPU time of a hub in seconds.
func (h hub) cpu(ctx context.Context) (float64, error) {
	samples, err := load.Scrape(ctx, []string{"http://" + h.admin}, nil)
	return samples["process_cpu_seconds_total"], err
}

// loadAll runs a usercast bench for each hub concurrently. All have the same number of streams, so they reach each phase at
// the same time.
func (m *million) loadAll(ctx context.Context, redis string, hubs []hub, total int) ([]load.Report, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reports := make([]load.Report, len(hubs))
	var running sync.WaitGroup
	for i, h := range hubs {
		running.Go(func() {
			if err := m.load(ctx, redis, i, h, len(hubs), (total+i)/len(hubs), &reports[i]); err != nil {
				cancel(fmt.Errorf("%w\noutput of the hub:\n%s", err, h.Output()))
			}
		})
	}
	running.Wait()
	return reports, context.Cause(ctx)
}

// load runs the usercast bench for one of the hubs, with separate users. Other hubs receive the messages for these users
// without having streams for them. Lost messages are also a result.
func (m *million) load(ctx context.Context, redis string, i int, h hub, of, streams int, report *load.Report) error {
	users := fmt.Sprintf("hub%d-", i)
	each := func(all float64) string { return strconv.FormatFloat(all/float64(of), 'f', -1, 64) }
	cmd := exec.CommandContext(ctx, m.program, "bench", "--json",
		"--url", "http://"+h.public+"/events?user="+users+load.UserMark, "--channel-prefix", "user-"+users,
		"--admin", "http://"+h.admin, "--redis", "redis://"+redis,
		"--streams", strconv.Itoa(streams), "--ramp", each(m.ramp), "--idle", m.idle.String(),
		"--rate", each(m.rate), "--duration", m.duration.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil && len(text) == 0 {
		return fmt.Errorf("usercast bench: %w\n%s", err, stderr.Bytes())
	}
	if err := json.Unmarshal(text, report); err != nil {
		return fmt.Errorf("parse the output of usercast bench: %w", err)
	}
	return nil
}
