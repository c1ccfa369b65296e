package proxypath_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"usercast/internal/finding"
)

// A heldBody keeps events back until the last of them is there, as a proxy does that fills a
// buffer. What comes before them passes.
type heldBody struct{ io.ReadCloser }

func (b heldBody) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p)
	for err == nil && n < len(p) && bytes.Contains(p[:n], []byte(`"event":0`)) && !bytes.Contains(p[:n], []byte(`"event":2`)) {
		var more int
		more, err = b.ReadCloser.Read(p[n:])
		n += more
	}
	return n, err
}

func TestEventsThatArriveTogetherWereHeldBack(t *testing.T) {
	s := newSite(t, often)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.addr})
	proxy.FlushInterval = -1
	proxy.ModifyResponse = func(answer *http.Response) error {
		answer.Body = heldBody{answer.Body}
		return nil
	}
	server := httptest.NewServer(proxy)
	defer server.Close()
	defer server.CloseClientConnections()
	s.look(t, server.URL+"/events?user=42", nil).want(t, finding.Fail, "url-buffered", "arrived together")
}
