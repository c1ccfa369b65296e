package redis

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestServerIsNamedByItsAddress(t *testing.T) {
	for url, want := range map[string]string{
		"redis://127.0.0.1:6380/0":            "127.0.0.1:6380",
		"redis://host":                        "host:6379",
		"redis://":                            "localhost:6379",
		"redis://[::1]":                       "[::1]:6379",
		"redis://app:s%40cret@host:1":         "host:1",
		"redis://:s%2Fcret@host?db=3":         "host:6379",
		"rediss://host/2?skip_verify=true":    "host:6379",
		"unix:///run/redis.sock?db=1":         "/run/redis.sock",
		"unix://app:secret@/run/r@dis/r.sock": "/run/r@dis/r.sock",
	} {
		s, err := ParseServer(url, ServerOptions{})
		if err != nil {
			t.Errorf("%s: %v", url, err)
		} else if s.Name() != want {
			t.Errorf("%s is named %q, want %q", url, s.Name(), want)
		}
	}
}

func TestBadURLGetsOnePlainLineWithoutThePassword(t *testing.T) {
	for url, want := range map[string]string{
		"":                               "must begin with",
		"localhost:6379":                 "must begin with",
		"hunter2@host":                   "must begin with",
		"http://host":                    "must begin with",
		"redis+sentinel://h1,h2/main/0":  "not supported yet",
		"redis+cluster://h1,h2":          "not supported yet",
		"redis:host:6379":                "one host",
		"redis://h1,h2":                  "one host",
		"redis://host:0":                 "port",
		"redis://host:70000":             "port",
		"redis://host/zero":              "database",
		"redis://host?db=-1":             "database",
		"redis://host?pool_size=9":       "unknown parameter",
		"redis://host?skip_verify=true":  "rediss://",
		"rediss://host?skip_verify=si":   "true or false",
		"redis://hunter2@host":           "no password",
		"redis://:hun%ter2@host":         "percent-encoded",
		"redis://:hun/ter2@host":         "percent-encoded",
		"redis://:1/hunter2@host":        "percent-encoded",
		"redis://:1?hunter2@host":        "percent-encoded",
		"redis://:1#hunter2@host":        "percent-encoded",
		"unix://run/redis.sock":          "absolute path",
		"unix:///":                       "absolute path",
		"redis://app:hunter2@host/x?y=z": "database",
	} {
		_, err := ParseServer(url, ServerOptions{})
		switch {
		case err == nil:
			t.Errorf("%s is accepted", url)
		case !strings.Contains(err.Error(), want):
			t.Errorf("%s: %q does not say %q", url, err, want)
		case strings.Contains(err.Error(), "ter2") || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: %q holds the password, or is not one line", url, err)
		}
	}
}

func TestPasswordOptionWinsOverURL(t *testing.T) {
	s := parse(t, "redis://app:old@host", ServerOptions{Password: "new"})
	if s.user != "app" || s.password != "new" {
		t.Errorf("user %q, password %q", s.user, s.password)
	}
	if s := parse(t, "redis://app@host", ServerOptions{Password: "new"}); s.user != "app" {
		t.Errorf("user %q", s.user)
	}
}

func TestCAFileIsChecked(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ url, file, want string }{
		{"redis://host", empty, "not encrypted"},
		{"rediss://host", empty, "no PEM certificate"},
		{"rediss://host", empty + ".absent", "no such file"},
	} {
		if _, err := ParseServer(c.url, ServerOptions{TLSCAFile: c.file}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %s: %v, want %q", c.url, c.file, err, c.want)
		}
	}
}

func TestConfigReportsAllFaultsAtOnce(t *testing.T) {
	_, err := NewPubSub(Config{ChannelPrefix: "user", MaxPayload: -1, PingAfter: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"prefix", "server", "publish", "payload", "negative"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %q", err, want)
		}
	}
}
