// Package console is the page that an operator sees at / of the admin listener: one
// document with its style and scripts in it, which asks for nothing else but the
// admin listener's API. It holds nothing of the hub's, so that whoever may not ask the
// API may have it.
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

// modules are the page's scripts, each after those that it imports. They are put
// together into one, in which all share one scope.
var modules = []string{
	"dom.js", "format.js", "histogram.js", "history.js", "hub.js", "charts.js",
	"banners.js", "overview.js", "tables.js", "tail.js", "user.js", "signin.js", "main.js",
}

// A Page is the document and the policy that it is served with.
type Page struct {
	Body   []byte
	Policy string // Content-Security-Policy
}

// Get is the console. Whoever gets it must not change it.
var Get = sync.OnceValue(build)

// build puts the page together. Its policy lets run what is in it, by hash, and lets it
// ask the listener that it came from.
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
		"require-trusted-types-for 'script'; trusted-types 'none'" // no text becomes markup
	body := strings.NewReplacer("<!-- styles -->\n", head.String(), "<!-- scripts -->\n", tail.String()).Replace(read("index.html"))
	return Page{[]byte(body), policy}
}

var (
	importLine = regexp.MustCompile(`(?m)^import .*;\n`)
	exportWord = regexp.MustCompile(`(?m)^export `)
)

// bundle is the modules as one script. An import is one line, and what is exported
// keeps its name.
func bundle() string {
	var script strings.Builder
	for _, name := range modules {
		text := importLine.ReplaceAllString(read(name), "")
		script.WriteString(exportWord.ReplaceAllString(text, ""))
	}
	return script.String()
}

// source is how a policy names an inline script or style.
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
