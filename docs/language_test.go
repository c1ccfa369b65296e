package docs

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// wordings are patterns of language that makes an engineer read a sentence twice: outdated connectives, vague
// pronouns, programs that hear and tell, negated nouns, "a" instead of "per".
var wordings = []*regexp.Regexp{
	regexp.MustCompile(`(?i)\b(anew|lest|whoever|beside|mend(s|ed)?|for ever|all the same|but that)\b`),
	regexp.MustCompile(`(?i)\b(nobody|everybody|somebody)\b|\bwho (is|asks|comes|has|have)\b`),
	regexp.MustCompile(`(?i)\b(hears?|heard|told|tells?|believe[sd]?|obey(s|ed)?|says? (yes|no|so|again))\b`),
	regexp.MustCompile(`(?i)\b(is|are|has|have|there (is|are)) no(ne)?\b|\bnone of\b`),
	regexp.MustCompile(`(?i)\b(give|say) (it|one|which|them)\b|\b(may|can) not\b`),
	// "5,000 messages a second", but not "a second message"
	regexp.MustCompile(`(?i)(\d|\b(once|twice|times|hundred|thousand|million|one|line|KiB|MiB|ms|µs|ns|bytes|messages|deliveries|pings|CPU|time|memory)) an? (second|stream|line|ping|connect|fault|million)\b|\bsome \d`),
	regexp.MustCompile(`(?i)\b(come|comes|came|coming) back\b|\b(of yours|of its own|on (its|their) way)\b`),
}

// question is for text of the program only: an error does not ask its reader.
var question = regexp.MustCompile(`(?i)\b(is|are|does)\b .*\?$`)

// A passage is a piece of text that people read.
type passage struct {
	kind string // docs, program, page, deploy or comment
	file string
	line int
	text string
}

// TestPlainLanguage looks for wordings in everything that users read, and in the comments of the program.
// Where a wording is right, testdata/wordings.txt lists the file and the words around it.
func TestPlainLanguage(t *testing.T) {
	allowed := allowedWordings(t)
	used := make(map[string]bool)
	count := make(map[string]int)
	read := make(map[string]int) // passages
	for _, p := range passages(t) {
		read[p.kind]++
		patterns := wordings
		if p.kind == "program" {
			patterns = append(slices.Clip(patterns), question)
		}
		for _, pattern := range patterns {
			for _, at := range pattern.FindAllStringIndex(p.text, -1) {
				around := p.text[max(0, at[0]-60):min(len(p.text), at[1]+60)]
				if strings.HasPrefix(p.text[at[1]:], " longer") {
					continue // "is no longer" has no other form
				}
				if entry, ok := allows(allowed[p.file], around, p.text[at[0]:at[1]]); ok {
					used[p.file+": "+entry] = true
					continue
				}
				count[p.kind]++
				t.Errorf("%s:%d: %q in %q", p.file, p.line, p.text[at[0]:at[1]], around)
			}
		}
	}
	for file, entries := range allowed {
		for _, entry := range entries {
			if !used[file+": "+entry] {
				t.Errorf("testdata/wordings.txt: %s has no wording in %q any more", file, entry)
			}
		}
	}
	for _, kind := range []string{"comment", "deploy", "docs", "page", "program"} {
		t.Logf("%s: %d wordings in %d passages", kind, count[kind], read[kind])
		if read[kind] < 500 {
			t.Errorf("%d passages of the kind %s were found, which cannot be all", read[kind], kind)
		}
	}
}

// allows returns the entry that holds the words, as part of the text around them.
func allows(entries []string, around, words string) (entry string, ok bool) {
	for _, entry := range entries {
		if strings.Contains(around, entry) && strings.Contains(entry, words) {
			return entry, true
		}
	}
	return "", false
}

// allowedWordings reads lines of the form "file: words", with # for comments.
func allowedWordings(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/wordings.txt")
	if err != nil {
		t.Fatal(err)
	}
	allowed := make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		file, words, ok := strings.Cut(line, ": ")
		if !ok {
			t.Fatalf("testdata/wordings.txt: %q is not of the form file: words", line)
		}
		allowed[file] = append(allowed[file], words)
	}
	return allowed
}

// passages are all texts of the repository that people read. Code, comments of tests, and what
// other projects wrote are not.
func passages(t *testing.T) (all []passage) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			switch entry.Name() {
			case "node_modules", ".git", "testdata", "uplot":
				return filepath.SkipDir
			}
			return nil
		}
		file, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		read := readers[filepath.Ext(path)]
		if read == nil || strings.HasSuffix(path, "package-lock.json") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found, err := read(file, string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, p := range found {
			p.file = file
			all = append(all, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// readers return the passages of a file, by its extension.
var readers = map[string]func(file, text string) ([]passage, error){
	".md":   readMarkdown,
	".go":   readGo,
	".js":   readScript,
	".html": eachLine("page"),
	".yml":  eachLine("deploy"),
	".yaml": eachLine("deploy"),
	".tpl":  eachLine("deploy"),
	".txt":  eachLine("deploy"),
	".conf": eachLine("deploy"),
	".env":  eachLine("deploy"),
	".json": readJSON,
}

func eachLine(kind string) func(file, text string) ([]passage, error) {
	return func(_, text string) (all []passage, _ error) {
		n := 0
		for line := range strings.Lines(text) {
			n++
			all = append(all, passage{kind: kind, line: n, text: strings.TrimSpace(line)})
		}
		return all, nil
	}
}

var code = regexp.MustCompile("``.+?``|`[^`]*`|\\]\\([^)]*\\)|<[^>]*>")

// readMarkdown returns paragraphs, without code.
func readMarkdown(file, text string) (all []passage, _ error) {
	kind := "docs"
	var paragraph []string
	start, n, fenced := 0, 0, false
	flush := func() {
		if len(paragraph) > 0 {
			joined := code.ReplaceAllString(strings.Join(paragraph, " "), "`")
			all = append(all, passage{kind: kind, line: start, text: joined})
		}
		paragraph = nil
	}
	for line := range strings.Lines(text) {
		n++
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "```") {
			fenced = !fenced
			flush()
			continue
		}
		switch {
		case fenced, strings.HasPrefix(line, "    ") && len(paragraph) == 0:
		case trimmed == "":
			flush()
		case trimmed[0] == '|', trimmed[0] == '#':
			flush()
			paragraph, start = []string{trimmed}, n
			flush()
		default:
			if len(paragraph) == 0 {
				start = n
			}
			paragraph = append(paragraph, trimmed)
		}
	}
	flush()
	return all, nil
}

// readGo returns the string literals of the program, among them help, logs and errors, and its comments. Those
// of tests and test kits are for developers alone.
func readGo(file, text string) (all []passage, err error) {
	if strings.HasSuffix(file, "_test.go") || strings.Contains(filepath.Dir(file), "test") {
		return nil, nil
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			value, err := strconv.Unquote(literal.Value)
			if err == nil {
				all = append(all, passage{kind: "program", line: set.Position(literal.Pos()).Line, text: value})
			}
		}
		return true
	})
	for _, group := range parsed.Comments {
		all = append(all, passage{kind: "comment", line: set.Position(group.Pos()).Line, text: strings.Join(strings.Fields(group.Text()), " ")})
	}
	return all, nil
}

var scriptText = regexp.MustCompile("\"(?:[^\"\\\\\\n]|\\\\.)*\"|'(?:[^'\\\\\\n]|\\\\.)*'|`(?:[^`\\\\]|\\\\.)*`")

// readScript returns the string literals of a script.
func readScript(_, text string) (all []passage, _ error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		source, comment, _ := strings.Cut(line, "// ")
		for _, literal := range scriptText.FindAllString(source, -1) {
			all = append(all, passage{kind: "page", line: n, text: strings.Trim(literal, "\"'`")})
		}
		if comment != "" {
			all = append(all, passage{kind: "comment", line: n, text: strings.TrimSpace(comment)})
		}
	}
	return all, nil
}

// readJSON returns all strings, for example titles and descriptions of a dashboard.
func readJSON(_, text string) (all []passage, err error) {
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return nil, err
	}
	var visit func(any)
	visit = func(v any) {
		switch v := v.(type) {
		case string:
			all = append(all, passage{kind: "deploy", text: v})
		case []any:
			for _, v := range v {
				visit(v)
			}
		case map[string]any:
			for _, v := range v {
				visit(v)
			}
		}
	}
	visit(value)
	return all, nil
}
