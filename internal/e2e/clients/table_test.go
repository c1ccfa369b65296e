package clients

import (
	"encoding/json"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"usercast/internal/hubtest"
)

// table holds the results so far, which make clients prints.
var table struct {
	mu         sync.Mutex
	situations []string // the columns
	clients    []string // the rows
	results    map[[2]string]string
}

// record stores the result of a client in a situation, which is the name of a test.
func record(situation, client, result string) {
	situation = strings.ReplaceAll(path.Base(situation), "_", " ")
	table.mu.Lock()
	defer table.mu.Unlock()
	if !slices.Contains(table.situations, situation) {
		table.situations = append(table.situations, situation)
	}
	if !slices.Contains(table.clients, client) {
		table.clients = append(table.clients, client)
	}
	if table.results == nil {
		table.results = make(map[[2]string]string)
	}
	table.results[[2]string{situation, client}] = result
}

// docs/clients.md names the libraries that the tests run, with their versions.
func TestDocsListTestedLibraries(t *testing.T) {
	read := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	page := hubtest.ReadFile(t, "docs/clients.md")
	var manifest struct{ Dependencies map[string]string }
	if err := json.Unmarshal([]byte(read("testdata/node/package.json")), &manifest); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for name, version := range manifest.Dependencies {
		if alias, ok := strings.CutPrefix(version, "npm:"); ok { // npm:NAME@VERSION
			name, version = alias[:strings.LastIndex(alias, "@")], alias[strings.LastIndex(alias, "@")+1:]
		}
		rows = append(rows, name+" "+version)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t(github.com/\S+ \S+)$`).FindAllStringSubmatch(read("testdata/go/go.mod"), -1) {
		rows = append(rows, m[1])
	}
	if len(rows) != 9 {
		t.Errorf("%d libraries are run: %q", len(rows), rows)
	}
	for _, row := range rows {
		if !strings.Contains(page, "\n| "+row+" |") {
			t.Errorf("docs/clients.md has no row %q", row)
		}
	}
}
