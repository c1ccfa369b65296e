package sse

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// Requests, and whether they are simple.
var ordinaryTests = map[string]bool{
	"GET /events HTTP/1.1\r\nHost: hub.example\r\n\r\n":                                            true,
	"GET /events?user=42&topic=a%20b HTTP/1.1\r\nHost: hub.example:8080\r\n\r\n":                   true,
	"GET /events?a#b=%zz HTTP/1.1\r\nhOST:[::1]:80\r\n\r\n":                                        true, // its query is the handler's
	"GET /events HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: Close\r\n\r\n":       true,
	"GET /events HTTP/1.1\r\nHost: a\r\nCookie: a=b; c=\"d\"\r\nLast-Event-ID: \r\nX:  y \r\n\r\n": true,
	"GET /events HTTP/1.1\r\nPragma: no-cache\r\nHost: a\r\n\r\n":                                  true,

	"":                                    false,
	"\r\n\r\n":                            false,
	"GET /events\r\n\r\n":                 false,
	"GET /events HTTP/1.1\r\nHost: a\r\n": false, // incomplete
	"GET /events HTTP/1.1\r\nHost: a\r\n\r\nmore":                                    false,
	"GET /events HTTP/1.1\r\nHost: a\r\n\r\nGET /events HTTP/1.1\r\nHost: a\r\n\r\n": false,
	"\r\nGET /events HTTP/1.1\r\nHost: a\r\n\r\n":                                    false,
	"GET /events HTTP/1.0\r\nHost: a\r\n\r\n":                                        false,
	"GET /events HTTP/1.2\r\nHost: a\r\n\r\n":                                        false,
	"GET /events HTTP/1.1 \r\nHost: a\r\n\r\n":                                       false,
	"GET /events  HTTP/1.1\r\nHost: a\r\n\r\n":                                       false,
	"GET  /events HTTP/1.1\r\nHost: a\r\n\r\n":                                       false,
	"GET /events?a b HTTP/1.1\r\nHost: a\r\n\r\n":                                    false,
	"GET /events?\x00 HTTP/1.1\r\nHost: a\r\n\r\n":                                   false,
	"GET /events?\xff HTTP/1.1\r\nHost: a\r\n\r\n":                                   false,
	"GET /events?\t HTTP/1.1\r\nHost: a\r\n\r\n":                                     false,
	"GET /events/ HTTP/1.1\r\nHost: a\r\n\r\n":                                       false,
	"GET /eventsx HTTP/1.1\r\nHost: a\r\n\r\n":                                       false,
	"GET //events HTTP/1.1\r\nHost: a\r\n\r\n":                                       false,
	"GET /%65vents HTTP/1.1\r\nHost: a\r\n\r\n":                                      false,
	"GET /./events HTTP/1.1\r\nHost: a\r\n\r\n":                                      false,
	"GET http://a/events HTTP/1.1\r\nHost: a\r\n\r\n":                                false,
	"get /events HTTP/1.1\r\nHost: a\r\n\r\n":                                        false,
	"HEAD /events HTTP/1.1\r\nHost: a\r\n\r\n":                                       false,
	"OPTIONS /events HTTP/1.1\r\nHost: a\r\n\r\n":                                    false,
	"POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n":                  false,
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                                               false,
	"\x16\x03\x01\x00\x05\x01\r\n\r\n":                                               false,
	"GET /events HTTP/1.1\r\n\r\n":                                                   false, // no host
	"GET /events HTTP/1.1\r\nHost:\r\n\r\n":                                          false,
	"GET /events HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n":                             false,
	"GET /events HTTP/1.1\r\nHost: a, b\r\n\r\n":                                     false,
	"GET /events HTTP/1.1\r\nHost: a/b\r\n\r\n":                                      false,
	"GET /events HTTP/1.1\r\nHost: u@a\r\n\r\n":                                      false,
	"GET /events HTTP/1.1\r\nHost : a\r\n\r\n":                                       false,
	"GET /events HTTP/1.1\r\n Host: a\r\n\r\n":                                       false,
	"GET /events HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n":                     false,
	"GET /events HTTP/1.1\r\nHost: a\r\nX: b\r\n\tfolded\r\n\r\n":                    false,
	"GET /events HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n":                          false,
	"GET /events HTTP/1.1\nHost: a\r\n\r\n":                                          false,
	"GET /events HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n":                          false,
	"GET /events HTTP/1.1\r\nHost: a\r\nX: b\x00\r\n\r\n":                            false,
	"GET /events HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n":                             false,
	"GET /events HTTP/1.1\r\nHost: a\r\nX\r\n\r\n":                                   false,
	"GET /events HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n":                                 false,
	"GET /events HTTP/1.1\r\nHost: a\r\nX_Y: b\r\n\r\n":                              false,
	"GET /events HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n":                   false,
	"GET /events HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\n\r\n":                   false,
	"GET /events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": false,
	"GET /events HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: chunked\r\n\r\n":          false,
	"GET /events HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n":                false,
	"GET /events HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n": false,
	"GET /events HTTP/1.1\r\nHost: a\r\nConnection: close, X\r\n\r\n":                false,
	"GET /events HTTP/1.1\r\nHost: a\r\nTrailer: X\r\nTE: trailers\r\n\r\n":          false,
}

func TestIsSimpleRequest(t *testing.T) {
	for text, want := range ordinaryTests {
		if got := isSimpleRequest([]byte(text), []byte("GET /events")); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// net/http's server parses every simple request in the same way, as exactly one request. Otherwise, a
// proxy could be tricked into request smuggling.
func FuzzSimpleRequest(f *testing.F) {
	f.Add("?user=42", "hub.example", "Accept", "text/event-stream")
	f.Add("", "[::1]:80", "Connection", "keep-alive")
	f.Add("?a#b=%zz", "a\r\nPragma: no-cache", "Cookie", "a=b\r\nContent-Type: text/plain")
	f.Add(" HTTP/1.1\r\nX:", "a\r\nHost: b", "Content-Length", "1\r\n\r\nx")
	understood, conns := make(chan *http.Request, 1), make(connListener)
	server := &http.Server{
		Handler:  http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { understood <- r }),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	go server.Serve(conns)
	f.Cleanup(func() { server.Close() })
	f.Fuzz(func(t *testing.T, query, host, name, value string) {
		text := []byte("GET /events" + query + " HTTP/1.1\r\nHost: " + host + "\r\n" + name + ": " + value + "\r\n\r\n")
		if !isSimpleRequest(text, []byte("GET /events")) {
			return
		}
		rest := bytes.NewReader(text)
		in := bufio.NewReader(rest)
		ours, err := http.ReadRequest(in)
		if err != nil || rest.Len() > 0 || in.Buffered() > 0 {
			t.Fatalf("%v, with %d bytes left", err, rest.Len()+in.Buffered())
		}
		conn, end := net.Pipe()
		defer conn.Close()
		conns <- end
		go conn.Write(text)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("net/http responds with %s", answer.Status)
		}
		theirs := <-understood
		type request struct {
			method, url, uri, proto, host string
			header                        http.Header
			close                         bool
			length                        int64
			noBody                        bool
		}
		what := func(r *http.Request) request {
			return request{r.Method, r.URL.String(), r.RequestURI, r.Proto, r.Host, r.Header, r.Close, r.ContentLength, r.Body == http.NoBody}
		}
		if got, want := what(ours), what(theirs); !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		if ours.URL.Path != "/events" || ours.Host == "" || strings.ContainsAny(ours.Host, "/@, ") || !ours.ProtoAtLeast(1, 1) {
			t.Errorf("%s of %q", ours.URL.Path, ours.Host)
		}
	})
}

// A connListener accepts what is sent to it.
type connListener chan net.Conn

func (l connListener) Accept() (net.Conn, error) {
	conn, ok := <-l
	if !ok {
		return nil, io.EOF
	}
	return conn, nil
}

func (l connListener) Close() error   { close(l); return nil }
func (l connListener) Addr() net.Addr { return &net.TCPAddr{} }
