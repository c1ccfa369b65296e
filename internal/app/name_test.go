package app

import (
	"os"
	"testing"
)

func TestHubWithoutANameIsNamedAfterItsHost(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"": host, "   ": host, "a": "a", " hub 1 ": "hub 1"} {
		if got := (&Config{Name: name}).hubName(); got != want {
			t.Errorf("--name %q: the hub is named %q, want %q", name, got, want)
		}
	}
}
