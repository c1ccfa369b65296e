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

// startHub starts a hub and returns once it has subscribed and answers.
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
		answer, err := http.Get("http://" + v.admin + "/metrics")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// load runs usercast bench and returns what it reported. That messages were lost is
// a result, too: bench says so with its exit status.
func (v *comparison) load(ctx context.Context, s scenario) ([]byte, error) {
	args := []string{"bench", "--json", "--url", "http://" + v.listen + "/events?user={user}",
		"--admin", "http://" + v.admin, "--redis", "redis://" + v.redis,
		"--streams", fmt.Sprint(v.streams), "--duration", v.duration.String()}
	cmd := exec.CommandContext(ctx, v.programs[loader], append(args, s.args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	report, err := cmd.Output()
	if err != nil && (ctx.Err() != nil || len(report) == 0) {
		return nil, fmt.Errorf("usercast bench: %w\n%s", err, said.Bytes())
	}
	return report, nil
}
