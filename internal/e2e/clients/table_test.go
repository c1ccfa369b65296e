package clients

import (
	"path"
	"slices"
	"strings"
	"sync"
)

// table is the results so far, as make clients prints them.
var table struct {
	mu         sync.Mutex
	situations []string // the columns
	clients    []string // the rows
	results    map[[2]string]string
}

// record notes the result of a client in a situation, which is the name of a test.
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
