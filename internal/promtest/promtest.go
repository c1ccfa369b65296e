// Package promtest runs a real Prometheus and promtool for a test. The server listens on loopback, on a free
// port, and ends with the test.
package promtest

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"usercast/internal/need"
	"usercast/internal/redistest"
)

// patience is the timeout for the start and for Await. It is long because it only matters to a test that fails.
const patience = 20 * time.Second

// Tool runs promtool, which must succeed.
func Tool(tb testing.TB, args ...string) {
	tb.Helper()
	if out, err := exec.Command(need.Program(tb, "promtool"), args...).CombinedOutput(); err != nil {
		tb.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

// Server is one Prometheus process. Its methods fail the test on an error.
type Server struct {
	tb  testing.TB
	url string
}

// Start starts a Prometheus with the text of a configuration, and waits until it is ready.
func Start(tb testing.TB, config string) *Server {
	tb.Helper()
	program := need.Program(tb, "prometheus")
	dir := tb.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	address := fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(tb))
	cmd := exec.Command(program, "--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start prometheus: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if tb.Failed() {
			output, _ := os.ReadFile(log.Name())
			tb.Logf("prometheus wrote:\n%s", output)
		}
	})
	s := &Server{tb, "http://" + address}
	s.Await("it is ready", func() bool {
		select {
		case <-exited:
			tb.Fatal("prometheus ended during its start")
		default:
		}
		answer, err := http.Get(s.url + "/-/ready")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	return s
}

// Await waits until done returns true.
func (s *Server) Await(what string, done func() bool) {
	s.tb.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.tb.Fatalf("timeout while waiting until %s", what)
		}
	}
}

// A Series is one result of a query.
type Series struct {
	Metric map[string]string `json:"metric"`
	Values [][2]any          `json:"values"` // of a range query
	Value  [2]any            `json:"value"`  // of an instant query
}

// Known reports whether the series has a value that is a number.
func (s Series) Known() bool {
	for _, v := range append(s.Values, s.Value) {
		text, _ := v[1].(string)
		if f, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(f) {
			return true
		}
	}
	return false
}

// Query evaluates an expression now.
func (s *Server) Query(expr string) []Series {
	s.tb.Helper()
	var answer struct{ Result []Series }
	s.Get("/api/v1/query?"+url.Values{"query": {expr}}.Encode(), &answer)
	return answer.Result
}

// Range evaluates an expression for each second of a time range that ends now.
func (s *Server) Range(expr string, since time.Duration) []Series {
	s.tb.Helper()
	now := time.Now()
	var answer struct{ Result []Series }
	s.Get("/api/v1/query_range?"+url.Values{
		"query": {expr}, "step": {"1"},
		"start": {now.Add(-since).Format(time.RFC3339Nano)}, "end": {now.Format(time.RFC3339Nano)},
	}.Encode(), &answer)
	return answer.Result
}

// Get requests a path of the API, and decodes the data of the response.
func (s *Server) Get(path string, data any) {
	s.tb.Helper()
	answer, err := http.Get(s.url + path)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer answer.Body.Close()
	var body struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		s.tb.Fatalf("prometheus responds with %s: %v", answer.Status, err)
	}
	if body.Status != "success" {
		s.tb.Fatalf("%s: %s", path, body.Error)
	}
	if err := json.Unmarshal(body.Data, data); err != nil {
		s.tb.Fatal(err)
	}
}
