package loopback

import "testing"

func TestIsHost(t *testing.T) {
	for _, host := range []string{
		"127.0.0.1", "127.0.0.1:8080", "127.255.0.9:1", "localhost", "LOCALHOST:8080", "localhost.", "localhost.:8080",
		"app.localhost", "a.b.localhost:443", "[::1]", "[::1]:8080", "::1", "[0:0:0:0:0:0:0:1]:80", "[::ffff:127.0.0.1]:8080", "127.0.0.1:",
	} {
		if !IsHost(host) {
			t.Errorf("%q is not recognized as this machine", host)
		}
	}
	for _, host := range []string{
		"", ":8080", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost", "localhost.evil.example:127",
		"127.0.0.1@evil.example", "127.0.0.1:80@evil.example", "127.0.0.1:@evil.example", "evil.example:80@127.0.0.1", "127.0.0.1,evil.example", "127.0.0.1 ",
		"10.0.0.1", "0.0.0.0", "[::]:8080", "[2001:db8::1]", "[::ffff:10.0.0.1]", "[::1", "::1]", "[::1%25eth0]", "::1%lo", "[[::1]]", "127.0.0.1..",
		"2130706433", "0x7f.1", "127.1", "localhost..", "%6cocalhost",
	} {
		if IsHost(host) {
			t.Errorf("%q is recognized as this machine", host)
		}
	}
}
