package browsertest

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A tab keeps its page when others are opened and used in between.
func TestTabsAreIndependent(t *testing.T) {
	if testing.Short() {
		t.Skip("starts browsers")
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<script>const name = location.pathname; let ready = false; setTimeout(() => ready = true)</script>"))
	}))
	defer server.Close()
	for name, start := range map[string]func(testing.TB) *WebDriver{"firefox": StartFirefox, "webkit": StartWebKit} {
		t.Run(name, func(t *testing.T) {
			browser := start(t)
			a, b := browser.Open(t, server.URL+"/a"), browser.Open(t, server.URL+"/b")
			for range 2 {
				a.Until("ready")
				b.Until("ready")
				if got := a.Text("name") + b.Text("name"); got != "/a/b" {
					t.Errorf("the pages are %s, want /a/b", got)
				}
			}
			t.Log(a.Text("navigator.userAgent"))
		})
	}
}
