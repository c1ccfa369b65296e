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

// A browser runs what the policy names, by hash, and the page must hold just that.
func TestPolicyNamesWhatThePageHolds(t *testing.T) {
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
			t.Errorf("%s allows %v, the page holds %v", kind, directives[kind], hashes[kind])
		}
	}
}

// What would be asked for, or is forbidden by the policy, would fail in the browser only.
func TestPageIsOneDocument(t *testing.T) {
	markup := inline.ReplaceAllString(string(Get().Body), "")
	if found := regexp.MustCompile(`(?i)<!-- s|\ssrc=|href="[^d]|\sstyle=|\son[a-z]+=|javascript:|<link rel="stylesheet`).FindString(markup); found != "" {
		t.Errorf("the page holds %q", found)
	}
	text := read("uplot/uPlot.min.css") + read("console.css")
	if strings.Contains(text, "url(") || strings.Contains(text, "@import") {
		t.Error("a style asks for more")
	}
	if !strings.Contains(string(Get().Body), "Copyright (c) 2022 Leon Sorokin") {
		t.Error("the page does not hold the licence of what it is made of")
	}
}

// Modules share one scope once they are put together: each comes after those that it
// imports, which export what it asks for, and nothing is lost.
func TestModulesArePutTogetherInOrder(t *testing.T) {
	files, err := fs.Glob(web, "web/*.js")
	files = slices.DeleteFunc(files, func(file string) bool { return file == "web/language.js" }) // no module
	if err != nil || len(files) != len(modules) {
		t.Errorf("%d modules of %d are in the page, %v", len(modules), len(files), err)
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
					t.Errorf("%s imports %s of %s, which is not there before it", name, what, m[2])
				}
				if strings.Count(text, what) == 1 {
					t.Errorf("%s imports %s for nothing", name, what)
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
		t.Errorf("left in the script: %s", left)
	}
	if strings.Contains(bundle(), "innerHTML") || strings.Contains(bundle(), "insertAdjacentHTML") {
		t.Error("text may become markup")
	}
}
