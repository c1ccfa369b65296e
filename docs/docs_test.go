// Package docs tests the Markdown pages: the targets of their links exist, and their commands produce the documented
// results.
package docs

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"usercast/internal/doctest"
	"usercast/internal/need"
)

const root = ".."

// pages reads all Markdown files of the repository.
func pages(t *testing.T) (all []*doctest.Page) {
	t.Helper()
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if entry.IsDir() && (entry.Name() == "node_modules" || entry.Name() == ".git") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(file, ".md") {
			all = append(all, doctest.Read(t, file))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestLinkTargetsExist checks links to pages, headings, files and directories of the repository.
func TestLinkTargetsExist(t *testing.T) {
	all := pages(t)
	anchors := make(map[string][]string)
	for _, p := range all {
		anchors[p.File] = p.Anchors
	}
	for _, p := range all {
		for _, link := range p.Links {
			file, anchor, _ := strings.Cut(link.Target, "#")
			if strings.Contains(file, "://") || strings.HasPrefix(file, "mailto:") {
				continue
			}
			target := p.File
			if file != "" {
				target = filepath.Join(filepath.Dir(p.File), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s:%d: %s does not exist", p.File, link.Line, target)
			} else if anchor != "" && !slices.Contains(anchors[target], anchor) {
				t.Errorf("%s:%d: %s has no heading for #%s", p.File, link.Line, target, anchor)
			}
		}
	}
}

// mark matches the valid comments above a block of commands.
var mark = regexp.MustCompile(`^(run|run: (hub|second hub|app|background|exit \d+)|run by: (Test\w+|Example\w*)|not run: \S.*)$`)

// TestCommandsAreMarked checks that each block of commands has a comment on how it is tested. Decisions are exempt.
func TestCommandsAreMarked(t *testing.T) {
	tests := testNames(t)
	for _, p := range pages(t) {
		if strings.HasPrefix(p.File, filepath.Join(root, "docs", "decisions")) {
			continue
		}
		for _, b := range p.Blocks {
			if !b.IsCommands() {
				continue
			}
			where, first := fmt.Sprintf("%s:%d", p.File, b.Line), strings.SplitN(b.Text, "\n", 2)[0]
			m := mark.FindStringSubmatch(b.Mark)
			if m == nil {
				t.Errorf("%s: add <!-- run -->, <!-- run by: Test… --> or <!-- not run: why --> above: %s", where, first)
			} else if m[3] != "" && !tests[m[3]] {
				t.Errorf("%s: the test %s does not exist", where, m[3])
			}
		}
	}
}

// testNames returns the names of all tests and examples.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	test := regexp.MustCompile(`(?m)^func ((?:Test|Example|Fuzz|Benchmark)\w*)\(`)
	err := filepath.WalkDir(root, func(file string, _ fs.DirEntry, err error) error {
		if !strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		for _, m := range test.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// namedTest is a test that a page names as its evidence.
var namedTest = regexp.MustCompile("`((?:Test|Example|Fuzz|Benchmark)[A-Z]\\w*)(/[^`]*)?`")

func TestNamedTestsExist(t *testing.T) {
	tests := testNames(t)
	named := 0
	for _, p := range pages(t) {
		for i, line := range readLines(t, p.File) {
			for _, m := range namedTest.FindAllStringSubmatch(line, -1) {
				named++
				if !tests[m[1]] {
					t.Errorf("%s:%d: %s does not exist", p.File, i+1, m[1])
				}
			}
		}
	}
	if named < 20 {
		t.Errorf("%d tests are named, which cannot be all", named)
	}
}

var (
	codeSpan = regexp.MustCompile("``.+?``|`[^`]*`")
	linkURL  = regexp.MustCompile(`\]\([^)]*\)`)
)

// TestTablesAreShort checks that a cell of a table has at most 15 words, with a code span as one: longer texts are
// paragraphs. docs/reference.md is generated from the help of the program.
func TestTablesAreShort(t *testing.T) {
	cells := 0
	for _, p := range pages(t) {
		if filepath.Base(p.File) == "reference.md" {
			continue
		}
		fenced := false
		for i, line := range readLines(t, p.File) {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
			}
			if fenced || !strings.HasPrefix(line, "|") {
				continue
			}
			text := linkURL.ReplaceAllString(codeSpan.ReplaceAllString(line, "code"), "]")
			for cell := range strings.SplitSeq(strings.Trim(text, "|"), "|") {
				cells++
				if n := len(strings.Fields(cell)); n > 15 {
					t.Errorf("%s:%d: %d words in %q", p.File, i+1, n, cell)
				}
			}
		}
	}
	if cells < 500 {
		t.Errorf("%d cells were found, which cannot be all", cells)
	}
}

func TestReadmeIsShort(t *testing.T) {
	if n := len(readLines(t, filepath.Join(root, "README.md"))); n > 200 {
		t.Errorf("README.md has %d lines, want at most 200", n)
	}
}

// readLines are the lines of a page.
func readLines(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// TestCommands runs the commands of each page in order, as a reader does.
func TestCommands(t *testing.T) {
	need.Program(t, "redis-server")
	for _, p := range pages(t) {
		if !slices.ContainsFunc(p.Blocks, func(b doctest.Block) bool { return b.Mark == "run" || strings.HasPrefix(b.Mark, "run: ") }) ||
			strings.HasPrefix(p.File, filepath.Join(root, "examples")) { // they have a separate test
			continue
		}
		t.Run(filepath.Base(p.File), func(t *testing.T) {
			t.Parallel()
			s := doctest.NewSession(t, t.TempDir())
			s.ServeApp(standIn)
			for _, b := range p.Blocks {
				if b.IsCommands() || strings.HasPrefix(b.Mark, "output") {
					s.Do(b)
				}
			}
		})
	}
}

// standIn stands in for an app in which user 42 is logged in, with the cookie session=42.
func standIn(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie("session"); err != nil || cookie.Value != "42" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("X-User-ID", "42")
}
