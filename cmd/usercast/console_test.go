package main

import (
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"usercast/internal/app"
	"usercast/internal/redistest"
)

// readStats asks for a snapshot.
func (h *liveHub) readStats(t *testing.T) (s app.Stats) {
	t.Helper()
	a := ask(t, "GET", h.private("/api/stats"))
	if a.code != 200 {
		t.Fatalf("/api/stats is answered with %d %s", a.code, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatsSayHowTheHubIs(t *testing.T) {
	server := redistest.Start(t)
	server.Kill()
	h := runHub(t, newHub(t, server.URL(), "--max-clients", "7", "--history-age", "90s", "--drain-delay", "500ms"))
	s := h.readStats(t)
	if s.Ready || s.Why == "" || s.Draining || s.ConsoleTail || len(s.Feeds) != 1 || s.Feeds[0].Connected || s.Feeds[0].Redis != server.Addr() {
		t.Errorf("before the first subscription: %+v", s)
	}
	if l := s.Limits; l.MaxClients != 7 || l.HistoryAgeSeconds != 90 || l.QueueTotalBytes != 256<<20 || l.MaxPayloadBytes != 1<<20 {
		t.Errorf("limits: %+v", l)
	}
	server.Restart()
	h.waitUntilSubscribed(t, 1)
	p := h.openPage(t, "user=42")
	newPublisher(t, server.Addr()).publish(t, "user-42:secret-topic", "secret-payload")
	p.want(t, "secret-payload")
	eventually(t, "the delivery is counted", func() bool { return h.readStats(t).Deliveries == 1 })
	s = h.readStats(t)
	if !s.Ready || s.Clients != 1 || s.Users != 1 || s.Connects != 1 || s.Feeds[0].MessagesRouted != 1 || s.DeliverySeconds.Count != 1 {
		t.Errorf("after one message: %+v", s)
	}
	if age := s.Time.Sub(s.Started).Seconds(); s.UptimeSeconds <= 0 || age-s.UptimeSeconds > 1 || s.UptimeSeconds-age > 1 {
		t.Errorf("up for %v s, started at %v, now %v", s.UptimeSeconds, s.Started, s.Time)
	}
	if body := ask(t, "GET", h.private("/api/stats")).body; strings.Contains(body, "secret") {
		t.Errorf("a topic or payload is told: %s", body)
	}
	h.stop(nil) // SIGTERM: the console is there while the hub waits for its streams
	eventually(t, "draining is told", func() bool { s := h.readStats(t); return s.Draining && !s.Ready })
	h.Hub().Disconnect("42")
}

// Whoever reads along does not keep the hub from stopping, and the stream that he reads
// with ends cleanly.
func TestOpenConsoleDoesNotHoldUpStopping(t *testing.T) {
	server := redistest.Start(t)
	h := startHub(t, server, "--console-tail")
	var open []*http.Response
	for _, path := range []string{"/api/stats", "/api/users/42/messages"} {
		r, err := http.NewRequest("GET", h.private(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		resp, err := plainClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		open = append(open, resp)
	}
	began := time.Now()
	h.stop(errInterrupt)
	h.wait(t)
	if took := time.Since(began); took > 900*time.Millisecond { // then what is still open is cut off
		t.Errorf("stopping took %v", took)
	}
	for _, resp := range open {
		b := make([]byte, 1<<20)
		var err error
		for err == nil {
			_, err = resp.Body.Read(b)
		}
		if err.Error() != "EOF" {
			t.Errorf("%s ends with %v", resp.Request.URL.Path, err)
		}
	}
}

// docs/console.md has a row for each field, and none for what is not there.
func TestDocsNameEachField(t *testing.T) {
	fields := make(map[string]bool)
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		switch {
		case typ.Kind() == reflect.Slice:
			walk(typ.Elem())
		case typ.Kind() == reflect.Struct && typ != reflect.TypeFor[time.Time]():
			for i := range typ.NumField() {
				f := typ.Field(i)
				if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
					fields[name] = true
				}
				walk(f.Type)
			}
		}
	}
	walk(reflect.TypeFor[app.Stats]())
	if len(fields) < 50 {
		t.Fatalf("only %d fields", len(fields))
	}
	documented := documentedFields(t, "../../docs/console.md")
	for name := range fields {
		if !documented[name] {
			t.Errorf("docs/console.md has no row for %s", name)
		}
	}
	for name := range documented {
		if !fields[name] {
			t.Errorf("docs/console.md has a row for %s, which is not there", name)
		}
	}
}

// documentedFields are those that the tables behind "The fields" name in their first cells.
func documentedFields(t *testing.T, file string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, tables, found := strings.Cut(string(text), "### The fields\n")
	if !found {
		t.Fatalf("%s has no heading The fields", file)
	}
	tables, _, _ = strings.Cut(tables, "\n## ")
	names := make(map[string]bool)
	for line := range strings.Lines(tables) {
		cell, ok := strings.CutPrefix(line, "| ")
		if !ok {
			continue
		}
		cell, _, _ = strings.Cut(cell, " | ")
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cell, -1) {
			names[m[1]] = true
		}
	}
	return names
}
