package proxytest

import (
	"os"
	"path/filepath"
	"testing"
)

// Lighttpd runs lighttpd with TLS on a free port. Pem is a file with the certificate and its key, documents are the files
// in its document root. It returns the address.
func Lighttpd(tb testing.TB, pem string, documents map[string]string, config string) (addr string) {
	tb.Helper()
	root := tb.TempDir()
	for name, content := range documents {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	config = `
server.modules = ( "mod_openssl", "mod_proxy", "mod_setenv", "mod_cgi" )
server.bind = "127.0.0.1"
server.port = ` + Port + `
server.document-root = "` + root + `"
ssl.engine = "enable"
ssl.pemfile = "` + pem + `"
` + config
	return start(tb, "lighttpd", "lighttpd.conf", config, func(file, _ string) []string { return []string{"-D", "-f", file} })
}
