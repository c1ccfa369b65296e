package topology

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func parse(t *testing.T, url string, opts Options) *Server {
	t.Helper()
	s, err := Parse(url, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServerIsNamedByItsAddress(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"redis://127.0.0.1:6380/0":                        "127.0.0.1:6380",
		"redis://host":                                    "host:6379",
		"redis://":                                        "localhost:6379",
		"redis://[::1]":                                   "[::1]:6379",
		"redis://app:s%40cret@host:1":                     "host:1",
		"redis://:s%2Fcret@host?db=3":                     "host:6379",
		"rediss://host/2?skip_verify=true":                "host:6379",
		"redis+sentinel://h1,h2:26380/main/0":             "h1:26379/main",
		"redis+sentinel://app:s,%40@h1:1,[::1]/my%20main": "h1:1/my main",
		"redis+sentinel://[::1]/main":                     "[::1]:26379/main",
		"redis+cluster://h1,h2:6380":                      "h1:6379",
		"rediss+sentinel://h1,h2/main?sentinel_tls=false": "h1:26379/main",
		"rediss+cluster://h1,h2:6380/?db=0":               "h1:6379",
		"redis+cluster://:s@[::1]:7000,h2/0":              "[::1]:7000",
		"unix:///run/redis.sock?db=1":                     "/run/redis.sock",
		"unix://app:secret@/run/r@dis/r.sock":             "/run/r@dis/r.sock",
	} {
		s, err := Parse(url, Options{})
		if err != nil {
			t.Errorf("%s: %v", url, err)
		} else if s.Name() != want {
			t.Errorf("%s is named %q, want %q", url, s.Name(), want)
		}
	}
}

func TestErrorOfAnInvalidURLIsOneLineWithoutThePassword(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"":                                         "must begin with",
		"localhost:6379":                           "must begin with",
		"127.0.0.1:6379":                           "must begin with",
		"[::1]:6379":                               "must begin with",
		`"redis://:hunter2@host"`:                  "without quotes",
		`'redis+cluster://h1,h2'`:                  "without quotes",
		"hunter2@host":                             "must begin with",
		"http://host":                              "must begin with",
		"redis+sentinel://h1,h2":                   "master name is missing",
		"redis+sentinel://h1,h2/":                  "master name is missing",
		"redis+sentinel://h1,h2/main/x":            "database",
		"redis+sentinel://h1,,h2/main":             "host:port,host:port",
		"redis+sentinel://h1:0,h2/main":            "port",
		"redis+sentinel://h1,h2:99999/main":        "port",
		"redis+sentinel://h1,h2:x/main":            "host:port,host:port",
		"redis+sentinel://hunter2@h1,h2/main":      "not a password",
		"redis+sentinel://:hun/ter2@h1,h2/main":    "percent-encode",
		"redis+sentinel://:hun%ter2@h1,h2/main":    "percent-encode",
		"redis+sentinel://:hun#ter2@h1,h2/main":    "percent-encode",
		"redis+sentinel://:1@h1,hun?ter2@h2/main":  "percent-encode",
		"redis+sentinel://h1/main?skip_verify=1":   "rediss://",
		"redis+cluster://h1,h2/1":                  "only database 0",
		"redis+cluster://h1,h2?skip_verify=true":   "only with rediss://",
		"rediss+cluster://h1,h2/1":                 "only database 0",
		"rediss+cluster://h1,h2?db=1":              "only database 0",
		"rediss+cluster://h1,h2?sentinel_user=a":   "sentinel_user; remove them (supported: db, skip_verify)",
		"redis+sentinel://h1/m?sentinel_tls=true":  "only with rediss+sentinel://",
		"rediss+sentinel://h1/m?sentinel_tls=2":    "true or false",
		"rediss+sentinel://h1/m?sentinel_user=a":   "--redis-sentinel-password-file",
		"rediss+sentinel://h1/m?ssl=hunter2":       "ssl; remove them (supported: db, skip_verify, sentinel_user, sentinel_password, sentinel_tls)",
		"rediss://h?tls=true&family=0&tls=hunter2": "unknown parameters in the Redis URL: family, tls; remove them (supported: db, skip_verify)",
		"redis://:1?hun,ter2":                      "may be a part of a password; remove them (supported: db)",
		"redis+cluster://h1,":                      "host:port,host:port",
		"redis+cluster://:hun/ter2@h1,h2":          "percent-encode",
		"redis+cluster:h1,h2":                      "host:port,host:port",
		"redis:host:6379":                          "one host",
		"redis://h1,h2":                            "one host",
		"redis://host:0":                           "port",
		"redis://host:70000":                       "port",
		"redis://host/zero":                        "database",
		"redis://host?db=-1":                       "database",
		"redis://host?pool_size=9":                 "pool_size; remove them",
		"redis://host?skip_verify=true":            "rediss://",
		"rediss://host?skip_verify=si":             "true or false",
		"redis://hunter2@host":                     "not a password",
		"redis://:hun%ter2@host":                   "percent-encode",
		"redis://:hun/ter2@host":                   "percent-encode",
		"redis://:1/hunter2@host":                  "percent-encode",
		"redis://:1?hunter2@host":                  "percent-encode",
		"redis://:1#hunter2@host":                  "percent-encode",
		"unix://run/redis.sock":                    "absolute path",
		"unix:///":                                 "absolute path",
		"redis://app:hunter2@host/x?y=z":           "database",
	} {
		_, err := Parse(url, Options{})
		switch {
		case err == nil:
			t.Errorf("%s is accepted", url)
		case !strings.Contains(err.Error(), want):
			t.Errorf("%s: %q does not contain %q", url, err, want)
		case strings.Contains(err.Error(), "ter2") || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: %q contains the password, or is not one line", url, err)
		}
	}
}

func TestPasswordOptionTakesPrecedenceOverURL(t *testing.T) {
	t.Parallel()
	s := parse(t, "redis://app:old@host", Options{Password: "new"})
	if s.login.user != "app" || s.login.password() != "new" {
		t.Errorf("user %q, password %q", s.login.user, s.login.password())
	}
	if s := parse(t, "redis://app@host", Options{Password: "new"}); s.login.user != "app" {
		t.Errorf("user %q", s.login.user)
	}
}

func TestCAFileIsChecked(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ url, file, want string }{
		{"redis://host", empty, "requires that each --redis URL begins with rediss://"},
		{"rediss://host", empty, "does not contain a PEM certificate"},
		{"rediss://host", empty + ".absent", "no such file"},
	} {
		if _, err := Parse(c.url, Options{TLSCAFile: c.file}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %s: %v, want %q", c.url, c.file, err, c.want)
		}
	}
}

func TestSeveralHostsAreReadInOrder(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"redis+sentinel://h1,h2:26380,[::1]/main": "h1:26379 h2:26380 [::1]:26379",
		"redis+sentinel://app:a,b@h1:1,h2/main/2": "h1:1 h2:26379",
		"redis+cluster://h1,h2:7000,h3":           "h1:6379 h2:7000 h3:6379",
		"redis+cluster://app:a,b@h1":              "h1:6379",
	} {
		s := parse(t, url, Options{})
		var got []string
		if s.cluster != nil {
			got = s.cluster.seeds
		} else {
			got = s.sentinels.addrs
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %s", url, got, want)
		}
		if strings.Contains(url, "a,b") && (s.login.user != "app" || s.login.password() != "a,b") {
			t.Errorf("%s: user %q, password %q", url, s.login.user, s.login.password())
		}
	}
}

// FuzzParse searches for a URL that makes the parser panic, or quote the URL in its error.
func FuzzParse(f *testing.F) {
	for _, url := range []string{"redis://:p@h:1/0", "redis+sentinel://u:p@a:1,b/m/0", "redis+cluster://a,b", "unix:///s?db=1", "redis+cluster://,@,"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		s, err := Parse(url, Options{})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("%q: %q is not one line", url, err)
			}
			return
		}
		if s.addr == "" || (s.sentinels != nil && s.cluster != nil) {
			t.Errorf("%q: %+v", url, s)
		}
	})
}

// A URL with several errors always gets the same one, so that a log does not seem to change.
func TestErrorOfAnInvalidURLIsAlwaysTheSame(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 100 {
		_, err := Parse("rediss+sentinel://h/main?skip_verify=si&sentinel_tls=si&db=x&ssl=true", Options{})
		seen[err.Error()] = true
	}
	if len(seen) != 1 {
		t.Errorf("%d different errors: %v", len(seen), seen)
	}
}
