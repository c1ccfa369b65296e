package topology

import (
	"fmt"
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
