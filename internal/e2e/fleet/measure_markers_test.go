//go:build measure

package fleet

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// TestMeasureMarkers measures what Redis sends to hubs without messages, for fleets of several sizes: markers, and the
// replies to probes and pings. The lists of markers are complete after 35 s.
func TestMeasureMarkers(t *testing.T) {
	for _, n := range []int{1, 5, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			server := redistest.Start(t)
			var hubs []*hubtest.Instance
			for range n {
				hubs = append(hubs, hubtest.StartInstance(t, server))
			}
			time.Sleep(45 * time.Second)
			for _, h := range hubs {
				if got := hubtest.Scrape(t, h.Admin).Sum("usercast_hubs"); int(got) != n {
					t.Fatalf("a hub knows %v hubs, want %d", got, n)
				}
			}
			const period = 60 * time.Second
			sent, cpu := figures(t, server)
			start := time.Now()
			time.Sleep(period)
			sentLater, cpuLater := figures(t, server)
			seconds := time.Since(start).Seconds()
			t.Logf("%d hubs: Redis sends %.0f bytes/s, and uses %.2f %% of a core", n, (sentLater-sent)/seconds, 100*(cpuLater-cpu)/seconds)
		})
	}
}

// figures returns the bytes that Redis has sent, and the CPU seconds that it has used.
func figures(t *testing.T, server *redistest.Server) (sent, cpu float64) {
	t.Helper()
	for line := range strings.Lines(fmt.Sprint(server.Do("INFO"))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		number, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "total_net_output_bytes":
			sent = number
		case "used_cpu_sys", "used_cpu_user":
			cpu += number
		}
	}
	return sent, cpu
}
