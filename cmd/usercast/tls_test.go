package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"usercast/internal/certtest"
)

func TestInvalidCertificateIsReportedInOneLine(t *testing.T) {
	t.Parallel()
	pair, other := certtest.New(t, "first"), certtest.New(t, "other")
	cert, key := pair.Write(t, t.TempDir())
	_, otherKey := other.Write(t, t.TempDir())
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no key":                  {[]string{"--tls-cert", cert}, "--tls-key: required with --tls-cert"},
		"no certificate":          {[]string{"--tls-key", key}, "--tls-cert: required with --tls-key"},
		"a missing certificate":   {[]string{"--tls-cert", cert + "x", "--tls-key", key}, "--tls-cert: open " + cert + "x: no such file"},
		"a missing key":           {[]string{"--tls-cert", cert, "--tls-key", key + "x"}, "--tls-key: open " + key + "x: no such file"},
		"a directory":             {[]string{"--tls-cert", t.TempDir(), "--tls-key", key}, "--tls-cert: read "},
		"another key":             {[]string{"--tls-cert", cert, "--tls-key", otherKey}, "are not a matching certificate and key: private key does not match"},
		"an empty certificate":    {[]string{"--tls-cert", empty, "--tls-key", key}, "are not a matching certificate and key: "},
		"an empty key":            {[]string{"--tls-cert", cert, "--tls-key", empty}, "are not a matching certificate and key: "},
		"swapped":                 {[]string{"--tls-cert", key, "--tls-key", cert}, "are not a matching certificate and key: "},
		"the certificate as both": {[]string{"--tls-cert", cert, "--tls-key", cert}, "are not a matching certificate and key: "},
	} {
		code, stdout, stderr := runCommand("", append([]string{"serve", "--auth", "insecure"}, test.args...)...)
		if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q; want 2 and one line with %q", name, code, stdout, stderr, test.want)
		}
	}
}
