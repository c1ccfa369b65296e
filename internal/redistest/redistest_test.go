package redistest

import (
	"strings"
	"testing"
)

func TestSentinelsKnowPrimaryAndReplicas(t *testing.T) {
	primary := Start(t)
	StartReplica(t, primary)
	StartReplica(t, primary)
	for _, s := range StartSentinels(t, 3, "main", primary) {
		if got := s.PrimaryOf("main"); got != primary.Addr() {
			t.Errorf("the primary is at %s, want %s", got, primary.Addr())
		}
		if known := fields(s.Do("sentinel", "master", "main")); known["num-slaves"] != "2" {
			t.Errorf("a sentinel knows %s replicas, want 2", known["num-slaves"])
		}
	}
}

func TestClusterOwnsAllSlots(t *testing.T) {
	for _, node := range StartCluster(t, 3) {
		if info := node.Do("cluster", "info").(string); !strings.Contains(info, "cluster_slots_ok:16384\r\n") {
			t.Errorf("CLUSTER INFO returns %s", info)
		}
	}
}
