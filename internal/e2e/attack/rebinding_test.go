package attack

import (
	"bufio"
	"fmt"
	"net/http"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// requestWithHost sends a request with that Host header, as a browser does for a name that resolves to the address.
func requestWithHost(t *testing.T, host, addr, method, path string) int {
	t.Helper()
	conn := hubtest.Dial(t, addr)
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nOrigin: http://%s\r\nAccept: text/event-stream\r\nContent-Length: 0\r\n\r\n", method, path, host, host)
	head, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return head.StatusCode
}

// A page of another site can make its host name resolve to this host (DNS rebinding). For the browser, it
// then has the same origin as the hub, which trusts every client.
func TestInsecureHubAcceptsLocalNamesOnly(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	_, public, private := hubtest.Serve(t, server, nil)
	_, anywhere, _ := hubtest.Serve(t, server, nil, "--auth-insecure-anywhere") // possibly behind a proxy
	dev := hubtest.StartProgram(t, nil, "dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	demo, _ := dev.Addresses(t)
	for _, host := range []string{"evil.example:8080", "evil.example", "127.0.0.1.evil.example:8080"} {
		for _, test := range []struct {
			addr, method, path string
			want               int
		}{
			{public, "GET", "/events?user=42", 403},
			{demo, "GET", "/events?user=42", 403},
			{demo, "GET", "/", 403},
			{demo, "POST", "/publish", 403},
			{private, "GET", "/api/users/42", 403},
			{private, "DELETE", "/api/users/42", 403},
			{private, "GET", "/debug/pprof/", 403},
			{anywhere, "GET", "/events?user=42", 200},
			{public, "GET", "/readyz", 200}, // a load balancer may use any name
		} {
			if got := requestWithHost(t, host, test.addr, test.method, test.path); got != test.want {
				t.Errorf("%s %s with Host %s: status %d, want %d", test.method, test.path, host, got, test.want)
			}
		}
	}
	for _, host := range []string{"127.0.0.1:8080", "localhost:8080", "app.localhost:8080"} {
		for _, addr := range []string{public, demo} {
			if got := requestWithHost(t, host, addr, "GET", "/events?user=42"); got != 200 {
				t.Errorf("a stream with Host %s: status %d", host, got)
			}
		}
	}
	if n := hubtest.Scrape(t, private).ByReason("usercast_rejects_total", "origin"); n != 3 {
		t.Errorf("%v rejections are counted as origin, want 3", n)
	}
}
