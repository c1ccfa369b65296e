package cli

import (
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/ssetest"
)

func TestPresenceWithTheEmbeddedRedisOfDev(t *testing.T) {
	t.Parallel()
	p := hubtest.StartProgram(t, nil, "dev", "--presence", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	public, admin := p.Addresses(t)
	stream, err := ssetest.Open(public, "user=42")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	hubtest.Eventually(t, "the user is online", func() bool {
		return strings.TrimSpace(hubtest.Request(t, "GET", "http://"+admin+"/api/online?user=42&user=43").Body) == `{"online":["42"]}`
	})
	hubtest.Eventually(t, "the hub has counted", func() bool {
		return strings.Contains(hubtest.Request(t, "GET", "http://"+admin+"/metrics").Body, "usercast_online_users 1\n")
	})
	if strings.Contains(p.Stderr.String(), "presence") {
		t.Errorf("dev complains:\n%s", &p.Stderr)
	}
}

func TestNamesThatPresenceCannotUse(t *testing.T) {
	t.Parallel()
	for want, flags := range map[string][]string{
		"--presence: the channel prefix must not contain }":                                     {"--channel-prefix", "a}"},
		"--control-channel: must differ from usercast:user-presence, the channel of --presence": {"--control-channel", "usercast:user-presence"},
		"--stream-key: must differ from usercast:user-online, the key of --presence":            {"--feed", "stream", "--stream-key", "usercast:user-online"},
	} {
		code, _, stderr := hubtest.RunCommand(t, append([]string{"serve", "--auth", "insecure", "--presence"}, flags...)...)
		if code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%v: status %d, %s", flags, code, stderr)
		}
	}
}
