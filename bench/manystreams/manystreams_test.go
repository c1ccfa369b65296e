package main

import (
	"encoding/csv"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/load"
	"usercast/internal/redistest"
)

// With real hubs, each bench receives its own messages only.
func TestFleetIsMeasured(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	m := million{
		program: hubtest.Build(t),
		perHub:  8, ramp: 1000, rate: 180, idle: 10 * time.Millisecond, duration: 500 * time.Millisecond,
		address: func() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(redistest.FreePort(t))) },
	}
	out := filepath.Join(t.TempDir(), "streams.csv")
	if err := m.run(t.Context(), []int{4, 12}, out, func() {}); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil || len(rows) != 3 || len(rows[0]) != len(columns) {
		t.Fatalf("%q, %v", rows, err)
	}
	want := []map[string]string{{"streams": "4", "hubs": "1"}, {"streams": "12", "hubs": "2"}}
	for i, want := range want {
		want["deliveries"], want["lost"], want["wrong_user"] = "90", "0", "0"
		for j, c := range columns {
			if w, ok := want[c.name]; ok && rows[i+1][j] != w {
				t.Errorf("row %d: %s is %s, want %s", i+1, c.name, rows[i+1][j], w)
			}
		}
	}
	if _, err := os.Stat(m.dir); err == nil {
		t.Error("the programs were not removed")
	}
}

func TestRowAddsUpHubs(t *testing.T) {
	one, four := 1.0, 4.0
	reports := []load.Report{
		{Streams: 100, Connect: &load.Connect{Opened: 100, HubPerOne: &one}, Idle: &load.Idle{Pings: 10, HubKiB: &one, HubHeapKiB: &one, Cost: load.Cost{Hub: &load.Hub{CPU: 1}}},
			Loops: []*load.Loop{{Messages: 10, Delivered: 10, Pings: 4, Latency: load.Latency{P50: 2, P99: 3}, Cost: load.Cost{Hub: &load.Hub{CPU: 3}}}}},
		{Streams: 300, Connect: &load.Connect{Opened: 300, HubPerOne: &one}, Idle: &load.Idle{Pings: 30, HubKiB: &four, HubHeapKiB: &one, Cost: load.Cost{Hub: &load.Hub{CPU: 1}}},
			Loops: []*load.Loop{{Messages: 10, Delivered: 10, Latency: load.Latency{P50: 1, P99: 4}, Cost: load.Cost{Hub: &load.Hub{CPU: 5}}}}},
	}
	r := newRow(reports, 2)
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"resident", r.resident, 3.25 * 1024}, {"heap", r.heap, 1024}, {"connect", r.connect, 1e-6}, {"all hubs", r.allHubs, 0.4},
		{"foreign", r.foreign, 0.1}, {"ping", r.ping, 0.05}, {"own", r.own(), 0.29}, {"p50", r.p50, 2}, {"p99", r.p99, 4},
	} {
		if math.Abs(c.got-c.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
}
