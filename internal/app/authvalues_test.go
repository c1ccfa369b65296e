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
