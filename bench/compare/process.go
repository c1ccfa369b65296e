package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"

	"usercast/bench/internal/process"
)

// startHub starts a hub. It returns when the hub has subscribed and responds.
func (v *comparison) startHub(ctx context.Context, h hub, ping string) (*process.Process, error) {
	return process.Start(ctx, v.dir, h.name, v.programs[h.name], h.args(v, ping), func() bool {
		if process.Ask(v.redis, "PUBSUB NUMPAT") != ":1" {
			return false
		}
		conn, err := net.Dial("tcp", v.listen)
		if err != nil {
			return false
		}
		conn.Close()
		resp, err := http.Get("http://" + v.admin + "/metrics")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// load runs usercast bench and returns its report. Lost messages, which cause a non-zero exit status, are also a result.
func (v *comparison) load(ctx context.Context, s scenario) ([]byte, error) {
	args := []string{"bench", "--json", "--url", "http://" + v.listen + "/events?user={user}",
		"--admin", "http://" + v.admin, "--redis", "redis://" + v.redis,
		"--streams", fmt.Sprint(v.streams), "--duration", v.duration.String()}
	cmd := exec.CommandContext(ctx, v.programs[loader], append(args, s.args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	report, err := cmd.Output()
	if err != nil && (ctx.Err() != nil || len(report) == 0) {
		return nil, fmt.Errorf("usercast bench: %w\n%s", err, stderr.Bytes())
	}
	return report, nil
}
