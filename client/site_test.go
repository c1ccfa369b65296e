package client_test

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A site is an origin. It serves pages and the module, and is a proxy between the pages and the
// hub. If the hub is down, it returns 502.
type site struct {
	*httptest.Server
	user  string            // the user of all its pages; different for each site
	files map[string]string // additional files by path

	// Guarded by mu.
	mu      sync.Mutex
	status  int // if not 0, the status for the stream's path, instead of the hub's response
	streams []url.Values
	wires   []*wire
}

const page = `<!doctype html><meta charset="utf-8"><title>a page</title><div id="app"></div>`

func startSite(t *testing.T, h *hub) *site {
	t.Helper()
	s := &site{user: strconv.FormatUint(rand.Uint64(), 36), files: map[string]string{}}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: h.Public})
	proxy.FlushInterval = -1
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	proxy.ModifyResponse = func(answer *http.Response) error {
		wire := &wire{ReadCloser: answer.Body, silent: make(chan struct{}), gone: answer.Request.Context().Done()}
		s.mu.Lock()
		s.wires = append(s.wires, wire)
		s.mu.Unlock()
		answer.Body = wire
		return nil
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch content, ok := s.files[r.URL.Path]; {
		case r.URL.Path == "/":
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, page)
		case r.URL.Path == "/usercast.js":
			http.ServeFile(w, r, "usercast.js")
		case ok:
			w.Header().Set("Content-Type", "text/javascript")
			io.WriteString(w, content)
		case strings.HasPrefix(r.URL.Path, "/npm/"):
			http.StripPrefix("/npm/", http.FileServer(http.Dir("node_modules"))).ServeHTTP(w, r)
		case r.URL.Path == "/events":
			if query := r.URL.Query(); !query.Has("user") { // like a proxy that authenticates users
				query.Set("user", s.user)
				r.URL.RawQuery = query.Encode()
			}
			s.mu.Lock()
			s.streams = append(s.streams, r.URL.Query())
			status := s.status
			s.mu.Unlock()
			if status != 0 {
				w.WriteHeader(status)
				return
			}
			proxy.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s
}

// stream returns the URL of the stream as a JavaScript string.
func (s *site) stream() string { return strconv.Quote("/events?user=" + s.user) }

// channel returns the channel of the site's user for a topic.
func (s *site) channel(topic string) string { return "user-" + s.user + ":" + topic }

// refuse sets the status for the stream's path; 0 passes requests to the hub.
func (s *site) refuse(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

// requests returns the queries of all requests for a stream.
func (s *site) requests() []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.streams)
}

// silence makes the open streams half-open: no more data arrives, and they do not end.
func (s *site) silence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.wires {
		w.silence()
	}
}

// A wire is the body of a stream in the proxy.
type wire struct {
	io.ReadCloser
	silent chan struct{}
	gone   <-chan struct{} // closed when the page has disconnected
	once   sync.Once
}

func (w *wire) silence() { w.once.Do(func() { close(w.silent) }) }

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	select {
	case <-w.silent:
		<-w.gone
		return 0, io.EOF
	default:
		return n, err
	}
}
