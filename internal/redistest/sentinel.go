package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// SentinelDown is how long the Sentinels of StartSentinels hear nothing of a server
// before they take it for dead.
const SentinelDown = time.Second

// StartSentinels starts n Sentinels that watch a primary under a name, and waits
// until each knows the others and all replicas that the primary has by now. A
// majority of them decides. Config is added to the configuration file of each, a
// line for each string.
func StartSentinels(tb testing.TB, n int, name string, primary *Server, config ...string) []*Server {
	tb.Helper()
	host, port := primary.HostPort()
	lines := []string{
		fmt.Sprintf("sentinel monitor %s %s %s %d", name, host, port, n/2+1),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", name, SentinelDown.Milliseconds()),
		// Also the pause before the next try at a fail-over is made of it.
		fmt.Sprintf("sentinel failover-timeout %s 5000", name),
	}
	lines = append(lines, config...)
	sentinels := make([]*Server, n)
	for i := range sentinels {
		sentinels[i] = start(tb, func(s *Server) []string { return []string{sentinelConfig(s, lines), "--sentinel"} })
	}
	slaves := strconv.Itoa(len(replicas(primary)))
	for _, s := range sentinels {
		s.Await("it knows replicas and other Sentinels", func() bool {
			known := fields(s.Do("sentinel", "master", name))
			return known["num-slaves"] == slaves && known["num-other-sentinels"] == strconv.Itoa(n-1)
		})
	}
	return sentinels
}

// sentinelConfig makes the file that a Sentinel keeps its state in, once.
func sentinelConfig(s *Server, lines []string) (file string) {
	s.tb.Helper()
	file = filepath.Join(s.dir, fmt.Sprintf("sentinel-%d.conf", s.port))
	if _, err := os.Stat(file); err == nil {
		return file
	}
	var config []byte
	for _, line := range append([]string{
		"bind 127.0.0.1", fmt.Sprint("port ", s.port), "dir " + s.dir,
		fmt.Sprintf("user %s on >%s ~* &* +@all", adminUser, adminPassword),
	}, lines...) {
		config = append(config, line+"\n"...)
	}
	if err := os.WriteFile(file, config, 0o600); err != nil {
		s.tb.Fatal(err)
	}
	return file
}

// PrimaryOf is the host:port that a Sentinel names as the primary with a name.
func (s *Server) PrimaryOf(name string) string {
	s.tb.Helper()
	reply := s.Do("sentinel", "get-master-addr-by-name", name).([]any)
	return fmt.Sprint(reply[0], ":", reply[1])
}

// fields reads a reply of names and values in turn.
func fields(reply any) map[string]string {
	m := make(map[string]string)
	for pair := range slices.Chunk(reply.([]any), 2) {
		m[fmt.Sprint(pair[0])] = fmt.Sprint(pair[1])
	}
	return m
}
