package stream

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"usercast/internal/app"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// readStats requests a snapshot.
func readStats(t *testing.T, h *hubtest.Hub) (s app.Stats) {
	t.Helper()
	a := hubtest.Request(t, "GET", h.AdminURL("/api/stats"))
	if a.Status != 200 {
		t.Fatalf("/api/stats: status %d %s", a.Status, a.Body)
	}
	if err := json.Unmarshal([]byte(a.Body), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatsReportTheStateOfTheHub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	h := hubtest.Run(t, hubtest.New(t, server.URL(), "--max-clients", "7", "--history-age", "90s", "--drain-delay", "500ms"))
	s := readStats(t, h)
	if s.Ready || s.Why == "" || s.Draining || s.ConsoleTail || len(s.Feeds) != 1 || s.Feeds[0].Connected || s.Feeds[0].Redis != server.Addr() {
		t.Errorf("before the first subscription: %+v", s)
	}
	if l := s.Limits; l.MaxClients != 7 || l.HistoryAgeSeconds != 90 || l.QueueTotalBytes != 256<<20 || l.MaxPayloadBytes != 1<<20 {
		t.Errorf("limits: %+v", l)
	}
	server.Restart()
	h.AwaitReady(t)
	p := h.Open(t, "user=42")
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42:secret-topic", "secret-payload")
	p.Want(t, "secret-payload")
	hubtest.Eventually(t, "the delivery is counted", func() bool { return readStats(t, h).Deliveries == 1 })
	s = readStats(t, h)
	if !s.Ready || s.Clients != 1 || s.Users != 1 || s.Connects != 1 || s.Feeds[0].MessagesRouted != 1 || s.DeliverySeconds.Count != 1 {
		t.Errorf("after one message: %+v", s)
	}
	if age := s.Time.Sub(s.Started).Seconds(); s.UptimeSeconds <= 0 || age-s.UptimeSeconds > 1 || s.UptimeSeconds-age > 1 {
		t.Errorf("up for %v s, started at %v, now %v", s.UptimeSeconds, s.Started, s.Time)
	}
	if body := hubtest.Request(t, "GET", h.AdminURL("/api/stats")).Body; strings.Contains(body, "secret") {
		t.Errorf("a topic or payload is in the response: %s", body)
	}
	h.Terminate() // SIGTERM: the console is available while the hub drains
	hubtest.Eventually(t, "draining is reported", func() bool { s := readStats(t, h); return s.Draining && !s.Ready })
	h.Hub().Disconnect("42")
}

// An open stream of the console does not delay shutdown, and ends cleanly.
func TestOpenConsoleDoesNotDelayShutdown(t *testing.T) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--console-tail")
	var open []*http.Response
	for _, path := range []string{"/api/stats", "/api/users/42/messages"} {
		r, err := http.NewRequest("GET", h.AdminURL(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		resp, err := hubtest.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		open = append(open, resp)
	}
	began := time.Now()
	h.Interrupt()
	h.Wait(t)
	if took := time.Since(began); took > 900*time.Millisecond { // after that, open connections are closed forcibly
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

// docs/console.md has a row for each field, and no row for other fields.
func TestDocsListAllStatsFields(t *testing.T) {
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
	documented := documentedFields(t, "docs/console.md")
	for name := range fields {
		if !documented[name] {
			t.Errorf("docs/console.md has no row for %s", name)
		}
	}
	for name := range documented {
		if !fields[name] {
			t.Errorf("docs/console.md has a row for %s, which does not exist", name)
		}
	}
}

// documentedFields returns the fields in the first cells of the tables below the heading "The fields".
func documentedFields(t *testing.T, file string) map[string]bool {
	t.Helper()
	_, tables, found := strings.Cut(hubtest.ReadFile(t, file), "### The fields\n")
	if !found {
		t.Fatalf("%s has no heading \"The fields\"", file)
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
