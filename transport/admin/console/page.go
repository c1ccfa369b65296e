// Package console contains the page at / of the admin listener: one document with inline
// styles and scripts, which requests only the API of the admin listener. The document
// contains no data of the hub, so that it can be served without authentication.
package console

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"regexp"
	"strings"
	"sync"
)

//go:embed web
var web embed.FS

// modules are the scripts of the page, each after those that it imports. They are
// concatenated into one script and share its scope.
var modules = []string{
	"dom.js", "format.js", "histogram.js", "history.js", "hub.js", "charts.js",
	"banners.js", "overview.js", "tables.js", "fleet.js", "tail.js", "user.js", "signin.js", "main.js",
}

// A Page is the document and the policy to serve it with.
type Page struct {
	Body   []byte
	Policy string // Content-Security-Policy
}

// Get returns the console. Callers must not modify it. It is safe for concurrent use.
var Get = sync.OnceValue(build)

// build assembles the page. Its policy allows the inline scripts and styles, by hash,
// and requests to the listener that served it.
func build() Page {
	styles := []string{read("uplot/uPlot.min.css"), read("console.css")}
	scripts := []string{read("language.js") + "/*\n" + read("uplot/LICENSE") + "*/\n" + read("uplot/uPlot.iife.min.js"), bundle()}

	var head, tail strings.Builder
	policy := "default-src 'none'; script-src"
	for i, script := range scripts {
		policy += source(script)
		kind := ""
		if i == len(scripts)-1 {
			kind = ` type="module"`
		}
		tail.WriteString("<script" + kind + ">" + script + "</script>\n")
	}
	policy += "; style-src"
	for _, style := range styles {
		policy += source(style)
		head.WriteString("<style>" + style + "</style>\n")
	}
	policy += "; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
		"require-trusted-types-for 'script'; trusted-types 'none'" // text cannot become markup
	body := strings.NewReplacer("<!-- styles -->\n", head.String(), "<!-- scripts -->\n", tail.String()).Replace(read("index.html"))
	return Page{[]byte(body), policy}
}

var (
	importLine = regexp.MustCompile(`(?m)^import .*;\n`)
	exportWord = regexp.MustCompile(`(?m)^export `)
)

// bundle returns the modules as one script. It relies on imports of one line and on
// exports that keep their names.
func bundle() string {
	var script strings.Builder
	for _, name := range modules {
		text := importLine.ReplaceAllString(read(name), "")
		script.WriteString(exportWord.ReplaceAllString(text, ""))
	}
	return script.String()
}

// source returns the hash source of an inline script or style in a policy.
func source(text string) string {
	sum := sha256.Sum256([]byte(text))
	return " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func read(name string) string {
	text, err := web.ReadFile("web/" + name)
	if err != nil {
		panic(err) // embedded
	}
	return string(text)
}
