package topology

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"usercast/internal/redistest"
)

// After SENTINEL RESET, the epoch starts at 0.
func TestEpochOfSentinelsThatWereResetIsAccepted(t *testing.T) {
	t.Parallel()
	var epoch atomic.Int64
	sentinel := func() string {
		return redistest.StartFake(t, func(command ...string) string {
			switch {
			case command[0] == "ping":
				return "+PONG"
			case command[0] != "sentinel":
				return "-ERR unknown command"
			case command[1] == "master":
				n := fmt.Sprint(epoch.Load())
				return fmt.Sprintf("*2\r\n$12\r\nconfig-epoch\r\n$%d\r\n%s", len(n), n)
			}
			return "*2\r\n$9\r\n127.0.0.1\r\n$1\r\n7"
		}, false)
	}
	s := parse(t, "redis+sentinel://"+sentinel()+","+sentinel()+"/main", Options{})
	for _, n := range []int64{3, 4, 0, 1} {
		epoch.Store(n)
		addr, err := s.LocatePrimary(t.Context())
		if err != nil || addr != "127.0.0.1:7" {
			t.Errorf("epoch %d: %s, %v", n, addr, err)
		}
		if _, known := s.sentinels.known(); known != n {
			t.Errorf("the known epoch is %d, want %d", known, n)
		}
	}
}

// sentinel_tls=false says that Sentinels are not encrypted, not that the password of Redis may be sent in cleartext.
func TestPasswordOfEncryptedRedisIsNotSentInCleartext(t *testing.T) {
	t.Parallel()
	for scheme, want := range map[string]bool{"rediss+sentinel": false, "redis+sentinel": true} {
		var sent atomic.Bool
		sentinel := redistest.StartFake(t, func(command ...string) string {
			if slices.Contains(command, "hunter2") {
				sent.Store(true)
			}
			return "-NOAUTH Authentication required."
		}, false)
		url := scheme + "://:hunter2@" + sentinel + "/main"
		if !want {
			url += "?sentinel_tls=false"
		}
		s := parse(t, url, Options{})
		_, err := s.LocatePrimary(t.Context())
		if f := s.Fault(err, false); f.Reason != "password" || !strings.Contains(f.Advice, "--redis-sentinel-password-file") {
			t.Errorf("%s: %v", scheme, f)
		}
		if sent.Load() != want {
			t.Errorf("%s: the password was sent: %v", scheme, sent.Load())
		}
	}
}
