package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// README and docs/install.md, which quotes the errors of an older Go, contain the Go version of go.mod.
func TestReadmeStatesTheGoVersion(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(string(mod))[1]
	for file, texts := range map[string][]string{
		"../../README.md":       {"which downloads Go " + version},
		"../../docs/install.md": {"which downloads Go " + version, "go.mod requires go >= " + version, "invalid go version '" + version + "'"},
	} {
		page, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		words := strings.Join(strings.Fields(string(page)), " ") // without line breaks
		for _, text := range texts {
			if !strings.Contains(words, text) {
				t.Errorf("%s does not have %q", file, text)
			}
		}
	}
}
