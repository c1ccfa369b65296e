package redis

import (
	"strings"
	"testing"
)

func TestConfigReportsAllErrorsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := NewPubSub(PubSubConfig{Channels: Channels{Users: "user"}, MaxPayload: -1, PingAfter: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"prefix", "Server", "Hub", "MaxPayload", "negative"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %q", err, want)
		}
	}
}
