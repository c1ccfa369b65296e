package stream

import (
	"regexp"
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// TestHeaderProxies runs the hub with the flags of the table in docs/authentication.md, and sends the header in the form
// that the documentation of each proxy describes. The proxies themselves do not run.
func TestHeaderProxies(t *testing.T) {
	t.Parallel()
	proxies := map[string]struct{ value, user string }{
		"oauth2-proxy":       {"auth0|64f0c1b2", "auth0|64f0c1b2"},
		"Traefik":            {"ann", "ann"},
		"Authelia":           {"ann", "ann"},
		"authentik":          {"900347b8a29876b45ca6f75722635ecfedf0e931c6022e3a29a8aa13fb5516fb", "900347b8a29876b45ca6f75722635ecfedf0e931c6022e3a29a8aa13fb5516fb"},
		"Pomerium":           {"google-oauth2|1141", "google-oauth2|1141"},
		"Tailscale Serve":    {"ann@example.com", "ann@example.com"},
		"Google IAP":         {"accounts.google.com:108234567890123456789", "accounts.google.com:108234567890123456789"},
		"Azure App Service":  {"6b0c2b1e-8f0a-4c55-9a55-0c8f6f5d9f11", "6b0c2b1e-8f0a-4c55-9a55-0c8f6f5d9f11"},
		"Cloudflare Access":  {"ann@example.com", "ann@example.com"},
		"AWS load balancer":  {"5c2d6a10-70a1-7042-5a8c-3d1f5e9b7c21", "5c2d6a10-70a1-7042-5a8c-3d1f5e9b7c21"},
		"Istio":              {"42", "42"},
		"Apache, Basic auth": {"M\xfcller", "Müller"}, // ISO-8859-1
	}
	server := redistest.Start(t)
	app := hubtest.NewPublisher(t, server.Addr())
	row := regexp.MustCompile("(?m)^\\| ([^|`]+) \\| [^|]+ \\| `(--user-header ([A-Za-z-]+)[^`]*)` \\|$")
	for _, cells := range row.FindAllStringSubmatch(hubtest.ReadFile(t, "docs/authentication.md"), -1) {
		name, flags, header := cells[1], strings.Fields(cells[2]), cells[3]
		proxy, ok := proxies[name]
		if !ok {
			t.Errorf("%q is in the table, but not tested", name)
			continue
		}
		delete(proxies, name)
		h := hubtest.Start(t, server, append([]string{"--auth", "header", "--trusted-proxy", "127.0.0.1"}, flags...)...)
		separator := ":"
		if strings.Contains(cells[2], "--topic-separator /") {
			separator = "/"
		}
		page := h.Open(t, "topic=activity", header+": "+proxy.value)
		app.Publish(t, "user-"+proxy.user+separator+"activity", name)
		page.Want(t, name)
		for _, headers := range [][]string{{header + ": "}, nil} {
			if a := hubtest.Request(t, "GET", h.PublicURL("/events"), headers...); a.Status != 401 && a.Status != 403 {
				t.Errorf("%s: %q: %d", name, headers, a.Status)
			}
		}
	}
	for name := range proxies {
		t.Errorf("%q is not in the table of docs/authentication.md", name)
	}
}

// White space around the value is not part of it, whichever parser reads the request.
func TestHeaderValueIsTrimmed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--auth", "header", "--trusted-proxy", "127.0.0.1")
	for _, value := range []string{"42", " \t42 \t", "\t4 2", " M\xfcller ", "Müller  "} {
		conn := hubtest.Dial(t, h.PublicAddr())
		if _, err := conn.Write([]byte("GET /events HTTP/1.1\r\nHost: hub\r\nX-User-ID:" + value + "\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
	}
	for user, n := range map[string]int{"42": 2, "4%202": 1, "M%C3%BCller": 2} {
		hubtest.Eventually(t, "the streams of "+user+" are open", func() bool {
			return strings.Count(hubtest.Request(t, "GET", h.AdminURL("/api/users/"+user)).Body, `"since"`) == n
		})
	}
}
