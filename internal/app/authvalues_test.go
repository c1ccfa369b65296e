package app

import "testing"

func TestParseNetwork(t *testing.T) {
	for s, want := range map[string]string{
		"10.0.0.5": "10.0.0.5/32", "10.1.2.3/8": "10.0.0.0/8", "::1": "::1/128", "fd00::1/8": "fd00::/8",
		"::ffff:10.0.0.5": "10.0.0.5/32", "::ffff:10.1.2.3/104": "10.0.0.0/8", "::ffff:10.1.2.3/90": "", "fe80::1%eth0": "", "10.0.0.0/33": "", "proxy": "", "": "",
	} {
		got, ok := parseNetwork(s)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%q: %v, %v, want %q", s, got, ok, want)
		}
	}
}

func TestIsHost(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"app.example": true, "app.example:8443": true, "localhost": true, "my_app": true, "10.0.0.5": true, "10.0.0.5:80": true, "[::1]": true, "[fd00::1]:443": true,
		"": false, "https://app.example": false, "app.example/": false, "app.example:": false, "app.example:0": false, "app.example:99999": false,
		"user@app.example": false, "app example": false, "app.example?x": false, "::1": false, "[fe80::1%25eth0]": false, "bücher.example": false, "a\r\nb": false, "[app.example]": false,
	} {
		if got := isHost(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}

func TestForwardHeaderNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"X-Tenant": true, "accept-language": true, "X_Tenant": true, "Cookie": true, "Sec-CH-UA": true, "X-Real-IP": true,
		"": false, "X Tenant": false, "X-Tenant:": false, "bücher": false,
		"Host": false, "connection": false, "TE": false, "Transfer-Encoding": false, "upgrade": false, "Proxy-Authorization": false, "Keep-Alive": false,
		"Accept": false, "X-Requested-With": false, "x-requested_with": false, "Last-Event-ID": false, "If-None-Match": false, "Content-Length": false,
		"X-Forwarded-For": false, "X_Forwarded_For": false, "Forwarded": false,
	} {
		if err := checkForwardHeader(name); (err == nil) != want {
			t.Errorf("%q: %v, want accepted: %v", name, err, want)
		}
	}
}
