// Package doctest reads Markdown pages, and runs the commands that they show, in tests.
//
// The HTML comment above a block of commands says what becomes of it:
//
//	<!-- run -->              it is run to its end, with success
//	<!-- run: exit 1 -->      the same, with that exit status
//	<!-- run: hub -->         it starts the hub, which then goes on; the one before is stopped
//	<!-- run: app -->         the same for the app
//	<!-- run: background -->  it goes on, and has written something before the next block is run
//	<!-- output -->           not commands: what the block before has written; … stands for anything
//	<!-- output: background -->  the same of the last one that goes on, from its start
//	<!-- run by: TestName --> that test runs it, or what is the same
//	<!-- not run: why -->
//
// <!-- commands below are not run: why --> is for the rest of a page, where no block says otherwise.
package doctest

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// A Page is one Markdown file.
type Page struct {
	File    string
	Blocks  []Block
	Anchors []string // what may stand after # in a link to it
	Links   []Link
}

// A Block is a code block, fenced or indented.
type Block struct {
	Line int    // of its first line
	Lang string // of a fenced one
	Text string // without indentation, with a line end
	Mark string // the comment above it, or the page's
}

// A Link leads from a page to another, to a file or to a URL.
type Link struct {
	Line   int
	Target string
}

var (
	fence    = regexp.MustCompile("^( *)(```+)([a-z]*)")
	comment  = regexp.MustCompile(`^ *<!-- (.*) -->$`)
	rest     = regexp.MustCompile(`^commands below are (not run: .*)$`)
	heading  = regexp.MustCompile(`^#{1,6} +(.*)$`)
	codeSpan = regexp.MustCompile("`[^`]*`")
	inline   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	attached = regexp.MustCompile(`(?:src|srcset|href)="([^"]+)"`)
)

// Read reads a page.
func Read(tb testing.TB, file string) *Page {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	p := &Page{File: file}
	p.parse(strings.Split(string(text), "\n"))
	return p
}

func (p *Page) parse(lines []string) {
	var mark, forRest string
	blank := true // the line before is, or is a comment
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if m := fence.FindStringSubmatch(line); m != nil {
			b := Block{Line: i + 2, Lang: m[3], Mark: or(mark, forRest)}
			for i++; i < len(lines) && !strings.HasPrefix(strings.TrimLeft(lines[i], " "), m[2]); i++ {
				b.Text += strings.TrimPrefix(lines[i], m[1]) + "\n"
			}
			p.Blocks = append(p.Blocks, b)
			mark, blank = "", false
			continue
		}
		if strings.HasPrefix(line, "    ") && blank {
			b := Block{Line: i + 1, Mark: or(mark, forRest)}
			indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
			for ; i < len(lines) && (strings.HasPrefix(lines[i], "    ") || lines[i] == ""); i++ {
				b.Text += strings.TrimPrefix(lines[i], indent) + "\n"
			}
			i--
			b.Text = strings.TrimRight(b.Text, "\n") + "\n"
			p.Blocks = append(p.Blocks, b)
			mark, blank = "", true
			continue
		}
		switch m := comment.FindStringSubmatch(line); {
		case m != nil && rest.MatchString(m[1]):
			forRest, blank = rest.FindStringSubmatch(m[1])[1], true
			continue
		case m != nil:
			mark, blank = m[1], true
			continue
		}
		if blank = strings.TrimSpace(line) == ""; blank {
			continue
		}
		mark = ""
		if m := heading.FindStringSubmatch(line); m != nil {
			p.anchor(m[1])
		}
		line = codeSpan.ReplaceAllString(line, "")
		for _, m := range append(inline.FindAllStringSubmatch(line, -1), attached.FindAllStringSubmatch(line, -1)...) {
			p.Links = append(p.Links, Link{i + 1, m[1]})
		}
	}
}

func or(mark, forRest string) string {
	if mark == "" {
		return forRest
	}
	return mark
}

// anchor adds a heading's, as GitHub makes it.
func (p *Page) anchor(title string) {
	var b strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	name := b.String()
	for n := 1; slices.Contains(p.Anchors, name); n++ {
		name = fmt.Sprintf("%s-%d", b.String(), n)
	}
	p.Anchors = append(p.Anchors, name)
}

// shells are the languages of fences that hold commands.
var shells = []string{"sh", "bash", "shell", "console"}

// commands are what blocks of commands begin with here.
var commands = []string{
	"usercast", "redis-cli", "redis-server", "redis-benchmark", "curl", "hey", "go", "make", "npm", "node", "python3", "ruby", "php",
	"docker", "kubectl", "helm", "systemctl", "systemd-analyze", "journalctl", "openssl", "sysctl", "ss", "nstat", "ulimit", "cat", "kill",
	"nginx", "haproxy", "caddy", "oauth2-proxy", "gcloud", "aws", "heroku", "apt-get", "gem", "pip", "pecl", "composer", "rails", "bundle", "git", "cd", "for", "while", "export", "promtool", "mkdir", "ssh", "touch",
}

// IsCommands reports whether the block is for a shell.
func (b Block) IsCommands() bool {
	if b.Lang != "" {
		return slices.Contains(shells, b.Lang)
	}
	for _, word := range strings.Fields(b.Text) {
		name, _, variable := strings.Cut(word, "=")
		if variable && strings.ToUpper(name) == name || word == "sudo" || word == `\\` {
			continue
		}
		return slices.Contains(commands, word)
	}
	return false
}
