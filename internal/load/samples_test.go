package load

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestSamplesAreAddedUp(t *testing.T) {
	s := make(Samples)
	for range 2 { // two hubs
		if err := s.add(strings.NewReader(`# HELP usercast_clients Open streams.
# TYPE usercast_clients gauge
usercast_clients 3
process_cpu_seconds_total 1.5
usercast_gaps_total{reason="too-large"} 1
usercast_gaps_total{reason="feed-reset"} 2
usercast_messages_received_total{feed="pubsub",redis="a {b} c:1"} 10
usercast_auth_seconds_bucket{le="+Inf"} 7
usercast_auth_seconds_sum 1e-06
stamped 4 1700000000000
`)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]float64{
		"usercast_clients": 6, "process_cpu_seconds_total": 3, "usercast_gaps_total": 6, `usercast_gaps_total{reason="too-large"}`: 2,
		"usercast_messages_received_total": 20, "usercast_auth_seconds_bucket": 0, "usercast_auth_seconds_sum": 2e-6, "stamped": 8,
	} {
		if s[name] != want {
			t.Errorf("%s is %v, want %v", name, s[name], want)
		}
	}
	for _, bad := range []string{"<html>", "a b", "a{b 1", "a}{ 1"} {
		if make(Samples).add(strings.NewReader(bad)) == nil {
			t.Errorf("%q is accepted as metrics", bad)
		}
	}
}

func TestScrapeErrorHidesThePassword(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	_, err := Scrape(t.Context(), []string{strings.Replace(server.URL, "http://", "http://ann:hunter2@", 1)}, nil)
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
}
