package client_test

import (
	"encoding/json"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// A hub is the built program with a Redis server.
type hub struct{ *hubtest.Instance }

// startHub starts a hub with a short retry delay.
func startHub(t *testing.T, flags ...string) *hub {
	t.Helper()
	return &hub{hubtest.StartInstance(t, redistest.Start(t), append([]string{"--retry", "200ms"}, flags...)...)}
}

// streams is the number of open streams of a user.
func (h *hub) streams(t *testing.T, user string) int {
	t.Helper()
	r := hubtest.Request(t, "GET", "http://"+h.Admin+"/api/users/"+user)
	var answer struct{ Streams []struct{} }
	if err := json.Unmarshal([]byte(r.Body), &answer); err != nil {
		t.Fatalf("%d %s: %v", r.Status, r.Body, err)
	}
	return len(answer.Streams)
}

// publish publishes one message.
func (h *hub) publish(channel, payload string) { h.Redis.Do("publish", channel, payload) }
