// Package doctest reads Markdown pages and runs their commands in tests.
//
// The HTML comment above a block of commands determines how the block is tested:
//
//	<!-- run -->                 runs the block to its end, which must succeed
//	<!-- run: exit 1 -->         the same, with another expected exit status
//	<!-- run: hub -->            starts the hub, which keeps running, and stops the previous one
//	<!-- run: second hub -->     the same for another hub, on the ports 8090 and 8091
//	<!-- run: app -->            the same for the app
//	<!-- run: background -->     starts a process that keeps running, and waits for its first output
//	<!-- output -->              the block is not commands but the output of the previous block; … matches any text
//	<!-- output: background -->  the same for the last background process, from its start
//	<!-- run by: TestName -->    the named test runs the block, or an equivalent
//	<!-- not run: why -->        the block is not tested
//
// <!-- commands below are not run: why --> applies to all later blocks of the page without their own comment.
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
	Anchors []string // valid fragments in a link to the page
	Links   []Link
}

// A Block is a code block, fenced or indented.
type Block struct {
	Line int    // number of its first line
	Lang string // language of a fenced block
	Text string // without indentation, with a line end
	Mark string // the comment above it, or the one for the rest of the page
}

// A Link is a link from a page to another page, a file or a URL.
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
	blank := true // the previous line is blank or a comment
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

// anchor adds the anchor of a heading, in the form that GitHub generates.
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

// shells are the languages of fenced blocks with commands.
var shells = []string{"sh", "bash", "shell", "console"}

// commands are the commands with which unfenced blocks of commands begin.
var commands = []string{
	"usercast", "redis-cli", "redis-server", "redis-benchmark", "curl", "hey", "go", "make", "npm", "node", "python3", "ruby", "php",
	"docker", "kubectl", "helm", "systemctl", "systemd-analyze", "journalctl", "openssl", "sysctl", "ss", "nstat", "ulimit", "cat", "kill",
	"nginx", "haproxy", "caddy", "oauth2-proxy", "gcloud", "aws", "heroku", "apt-get", "gem", "pip", "pecl", "composer", "rails", "bundle", "git", "cd", "for", "while", "export", "promtool", "mkdir", "ssh", "touch",
}

// IsCommands reports whether the block contains shell commands.
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
