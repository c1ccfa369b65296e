package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// README and the errors that it quotes contain the Go version of go.mod.
func TestReadmeStatesTheGoVersion(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(string(mod))[1]
	for _, text := range []string{"With Go " + version + " or later", "go.mod requires go >= " + version + " (", "invalid go version '" + version + "'"} {
		if !strings.Contains(string(readme), text) {
			t.Errorf("README does not have %q", text)
		}
	}
}
