package console

import (
	"crypto/sha256"
	"encoding/base64"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var inline = regexp.MustCompile(`(?s)<(script|style)[^>]*>(.*?)</(?:script|style)>`)

// The policy lists the inline scripts and styles by hash, and must match the page.
func TestPolicyMatchesPage(t *testing.T) {
	page := Get()
	directives := make(map[string][]string)
	for _, d := range strings.Split(page.Policy, "; ") {
		words := strings.Fields(d)
		directives[words[0]] = words[1:]
	}
	for name, want := range map[string]string{
		"default-src": "'none'", "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
		"img-src": "data:", "require-trusted-types-for": "'script'", "trusted-types": "'none'",
	} {
		if got := strings.Join(directives[name], " "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	hashes := map[string][]string{}
	for _, m := range inline.FindAllStringSubmatch(string(page.Body), -1) {
		sum := sha256.Sum256([]byte(m[2]))
		hashes[m[1]+"-src"] = append(hashes[m[1]+"-src"], "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	}
	for _, kind := range []string{"script-src", "style-src"} {
		if !slices.Equal(directives[kind], hashes[kind]) || len(hashes[kind]) != 2 {
			t.Errorf("%s allows %v, the page contains %v", kind, directives[kind], hashes[kind])
		}
	}
}

// References to other files and markup that the policy forbids would fail only in the browser.
func TestPageIsOneDocument(t *testing.T) {
	markup := inline.ReplaceAllString(string(Get().Body), "")
	if found := regexp.MustCompile(`(?i)<!-- s|\ssrc=|href="[^d]|\sstyle=|\son[a-z]+=|javascript:|<link rel="stylesheet`).FindString(markup); found != "" {
		t.Errorf("the page contains %q", found)
	}
	text := read("uplot/uPlot.min.css") + read("console.css")
	if strings.Contains(text, "url(") || strings.Contains(text, "@import") {
		t.Error("a style loads another file")
	}
	if !strings.Contains(string(Get().Body), "Copyright (c) 2022 Leon Sorokin") {
		t.Error("the page does not contain the license of uPlot")
	}
}

// The concatenated modules share one scope: each must come after the modules that it imports,
// import only names that they export, and declare no name twice.
func TestModulesAreBundledInOrder(t *testing.T) {
	files, err := fs.Glob(web, "web/*.js")
	files = slices.DeleteFunc(files, func(file string) bool { return file == "web/language.js" }) // not a module
	if err != nil || len(files) != len(modules) {
		t.Errorf("the page contains %d of %d modules: %v", len(modules), len(files), err)
	}
	imports := regexp.MustCompile(`(?m)^import \{ (.*) \} from "\./(.*)";$`)
	exports := regexp.MustCompile(`(?m)^export (?:async )?(?:function|const|class) ([\w$]+)`)
	declared := regexp.MustCompile(`(?m)^(?:export )?(?:async )?(?:function|const|let|class) ([\w$]+)`)
	exported, owners := map[string][]string{}, map[string]string{}
	for _, name := range modules {
		text := read(name)
		for _, m := range imports.FindAllStringSubmatch(text, -1) {
			for what := range strings.SplitSeq(m[1], ", ") {
				if !slices.Contains(exported[m[2]], what) {
					t.Errorf("%s imports %s from %s, which does not come before it or does not export it", name, what, m[2])
				}
				if strings.Count(text, what) == 1 {
					t.Errorf("%s imports %s without using it", name, what)
				}
			}
		}
		for _, m := range exports.FindAllStringSubmatch(text, -1) {
			exported[name] = append(exported[name], m[1])
		}
		for _, m := range declared.FindAllStringSubmatch(text, -1) {
			if owner, taken := owners[m[1]]; taken {
				t.Errorf("%s and %s both declare %s", owner, name, m[1])
			}
			owners[m[1]] = name
		}
	}
	if left := regexp.MustCompile(`(?m)^(?:import|export) .*`).FindString(bundle()); left != "" {
		t.Errorf("the script still contains %s", left)
	}
	if strings.Contains(bundle(), "innerHTML") || strings.Contains(bundle(), "insertAdjacentHTML") {
		t.Error("text can become markup")
	}
}
