package hubtest

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// A Response is the response to a request.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// Client uses a separate connection for each request.
var Client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: Patience}

// Request sends one request without a body. Headers are "Name: value".
func Request(tb testing.TB, method, url string, headers ...string) Response {
	tb.Helper()
	r, err := TryRequest(method, url, headers...)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// TryRequest is Request for requests that may fail.
func TryRequest(method, url string, headers ...string) (Response, error) {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		return Response{}, err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	response, err := Client.Do(r)
	if err != nil {
		return Response{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return Response{response.StatusCode, response.Header, string(body)}, err
}
