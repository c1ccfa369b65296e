package proxypath

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/internal/finding"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// On a busy host, the headers can arrive while the timeout expires. This is a timeout, not a closed stream.
func TestHeadersThatArriveWithTheTimeoutAreATimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var found []string
		i := &inspection{
			Target: Target{URL: &url.URL{Scheme: "http", Host: "127.0.0.1", Path: "/events"}, Timeout: time.Second},
			report: func(f finding.Finding) { found = append(found, f.Name) },
			client: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.URL.RawQuery != "" {
					return nil, errors.New("no answer")
				}
				httptrace.ContextClientTrace(r.Context()).GotConn(httptrace.GotConnInfo{})
				<-r.Context().Done()
				w := http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}
				return &w, nil
			})},
		}
		if s := i.connect(context.Background()); s != nil {
			s.close()
			t.Error("connect returned a stream whose context has ended")
		}
		if !slices.Equal(found, []string{"url-silent"}) {
			t.Errorf("found %s", strings.Join(found, ", "))
		}
	})
}
