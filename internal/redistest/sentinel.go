package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// SentinelDown is the time after which the Sentinels of StartSentinels consider an unresponsive server down.
const SentinelDown = time.Second

// StartSentinels starts n Sentinels that monitor a primary under a name. It waits until each knows the others and all
// current replicas of the primary. The quorum is a majority. The strings of config are added to the configuration file
// of each, one per line; with "tls-replication yes", the Sentinels connect to the TLS port of the primary.
func StartSentinels(tb testing.TB, n int, name string, primary *Server, config ...string) []*Server {
	tb.Helper()
	host, port := primary.HostPort()
	if slices.Contains(config, "tls-replication yes") {
		host, port, _ = net.SplitHostPort(primary.TLSAddr())
	}
	lines := []string{
		fmt.Sprintf("sentinel monitor %s %s %s %d", name, host, port, n/2+1),
		fmt.Sprintf("sentinel down-after-milliseconds %s %d", name, SentinelDown.Milliseconds()),
		// The pause before the next attempt at a failover also depends on it.
		fmt.Sprintf("sentinel failover-timeout %s 5000", name),
	}
	lines = append(lines, config...)
	sentinels := make([]*Server, n)
	for i := range sentinels {
		sentinels[i] = start(tb, func(s *Server) []string {
			own := lines
			if slices.ContainsFunc(config, func(line string) bool { return strings.HasPrefix(line, "tls-cert-file ") }) {
				own = append([]string{fmt.Sprint("tls-port ", s.chooseTLSPort())}, lines...)
			}
			return []string{sentinelConfig(s, own), "--sentinel"}
		})
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

// sentinelConfig writes the configuration file, in which a Sentinel also keeps its state, if it does not exist.
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

// PrimaryOf returns the host:port that a Sentinel reports for a primary.
func (s *Server) PrimaryOf(name string) string {
	s.tb.Helper()
	reply := s.Do("sentinel", "get-master-addr-by-name", name).([]any)
	return fmt.Sprint(reply[0], ":", reply[1])
}

// fields converts a list of names and values to a map.
func fields(reply any) map[string]string {
	m := make(map[string]string)
	for pair := range slices.Chunk(reply.([]any), 2) {
		m[fmt.Sprint(pair[0])] = fmt.Sprint(pair[1])
	}
	return m
}
