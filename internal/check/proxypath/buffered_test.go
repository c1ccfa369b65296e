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

// A bufferedBody delays events until the last of them has arrived, like a proxy that fills a buffer. It does not delay the
// blocks before them.
type bufferedBody struct{ io.ReadCloser }

func (b bufferedBody) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p)
	for err == nil && n < len(p) && bytes.Contains(p[:n], []byte(`"event":0`)) && !bytes.Contains(p[:n], []byte(`"event":2`)) {
		var more int
		more, err = b.ReadCloser.Read(p[n:])
		n += more
	}
	return n, err
}

func TestEventsThatArriveTogetherWereBuffered(t *testing.T) {
	s := newSite(t, often)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.addr})
	proxy.FlushInterval = -1
	proxy.ModifyResponse = func(answer *http.Response) error {
		answer.Body = bufferedBody{answer.Body}
		return nil
	}
	server := httptest.NewServer(proxy)
	defer server.Close()
	defer server.CloseClientConnections()
	s.inspect(t, server.URL+"/events?user=42", nil).want(t, finding.Fail, "url-buffered", "arrived together")
}
