package inspect

import (
	"fmt"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/redistest"
)

func TestAdviceDoesNotLowerABufferLimit(t *testing.T) {
	wanted := bufferLimit{32 << 20, 8 << 20, 60}
	for before, after := range map[bufferLimit]bufferLimit{
		{1 << 20, 1 << 20, 10}:   wanted,
		{256 << 20, 1 << 20, 60}: {256 << 20, 8 << 20, 60},
		{0, 1 << 20, 120}:        {0, 8 << 20, 120},
		{1 << 20, 0, 0}:          {32 << 20, 0, 60},
	} {
		if got := before.raisedTo(wanted); got != after {
			t.Errorf("%v: %v, want %v", before, got, after)
		}
	}
}

// The limit at which a single message ends the subscription is found by publishing.
func TestInspectionKnowsHowMuchOfTheBufferAMessageTakes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr(), Protocol: 2, MaxRetries: -1})
	defer client.Close()
	for _, payload := range []int{300_000, 950_000, 1 << 20, 5_000_000} {
		limit := inBuffer(int64(payload)) + 64<<10
		for hard, want := range map[int64]bool{limit: true, int64(payload) - 32<<10: false} {
			server.Do("config", "set", "client-output-buffer-limit", fmt.Sprintf("pubsub %d 0 0", hard))
			subscriber := client.Subscribe(t.Context(), "x")
			if _, err := subscriber.ReceiveTimeout(t.Context(), patience); err != nil {
				t.Fatal(err)
			}
			server.Do("publish", "x", strings.Repeat("x", payload))
			_, err := subscriber.ReceiveTimeout(t.Context(), patience)
			if received := err == nil; received != want {
				t.Errorf("a message of %d bytes with a limit of %d: received %v, want %v (%v)", payload, hard, received, want, err)
			}
			_ = subscriber.Close()
		}
	}
}
