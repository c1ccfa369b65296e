package proxytest

import (
	"strings"
	"testing"
)

// apacheModules are the modules that configurations in docs/reverse-proxies.md use, and those that every
// configuration needs.
var apacheModules = []string{"mpm_event", "authz_core", "ssl", "http2", "proxy", "proxy_http", "headers", "alias", "asis", "env", "filter", "deflate"}

// Apache runs apache2 with a configuration that listens on {listen}, and returns that address.
func Apache(tb testing.TB, config string) (addr string) {
	tb.Helper()
	var b strings.Builder
	for _, line := range []string{
		"ServerRoot " + Dir, "DefaultRuntimeDir " + Dir, "PidFile " + Dir + "/pid", "Mutex file:" + Dir, "ErrorLog " + Dir + "/error.log",
		"ServerName localhost", "Listen " + Listen, "StartServers 1",
	} {
		b.WriteString(line + "\n")
	}
	for _, module := range apacheModules {
		b.WriteString("LoadModule " + module + "_module " + "/usr/lib/apache2/modules/mod_" + module + ".so" + "\n")
	}
	return start(tb, "apache2", "apache2.conf", b.String()+config, func(file, _ string) []string {
		return []string{"-D", "FOREGROUND", "-f", file}
	})
}
