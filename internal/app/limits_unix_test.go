//go:build unix

package app

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The alert computes the number of streams like DescriptorBudget.
func TestDescriptorAlertUsesTheSameReserve(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/rules/recording.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		fmt.Sprintf("usercast_build_info) - %d, 2)\n", ownDescriptors),
		fmt.Sprintf(" - clamp_max(floor(instance:usercast_connections:limit / 5) + 1, %d))\n", newClientDescriptors),
	} {
		if !strings.Contains(string(rules), part) {
			t.Errorf("instance:usercast_descriptors:ratio does not contain %q", part)
		}
	}
}
