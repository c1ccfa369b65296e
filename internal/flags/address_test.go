package flags

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// check polls the admin listener, with a new client each time. An idle connection of each would stay open.
func TestClientKeepsNoConnections(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if !r.Close {
			t.Error("the connection stays open")
		}
	}))
	defer s.Close()
	client, host := Client(s.Listener.Addr().String())
	resp, err := client.Get("http://" + host)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
