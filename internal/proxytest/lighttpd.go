package proxytest

import (
	"os"
	"path/filepath"
	"testing"
)

// Lighttpd runs lighttpd on a free port and returns its address. Pem is a file with the certificate and its key; without
// one, lighttpd serves plain HTTP. Documents are the files in its document root.
func Lighttpd(tb testing.TB, pem string, documents map[string]string, config string) (addr string) {
	tb.Helper()
	root := tb.TempDir()
	for name, content := range documents {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	if pem != "" {
		config = "ssl.engine = \"enable\"\nssl.pemfile = \"" + pem + "\"\n" + config
	}
	config = `
server.modules = ( "mod_openssl", "mod_proxy", "mod_setenv", "mod_cgi" )
server.bind = "127.0.0.1"
server.port = ` + Port + `
server.document-root = "` + root + `"
` + config
	return start(tb, "lighttpd", "lighttpd.conf", config, func(file, _ string) []string { return []string{"-D", "-f", file} })
}
