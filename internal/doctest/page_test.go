package doctest

import (
	"reflect"
	"strings"
	"testing"
)

const sample = "# A page\n" + `
See [there](other.md#part-1) and ` + "`[not](this)`" + `, <img src="x.png">.

<!-- run -->
    usercast version

    echo two

Text.

    [section]
    key = value

<!-- not run: it needs a net -->
` + "```sh\ncurl http://example.com/\n```" + `

<!-- run -->
A mark applies only to the block that follows it directly.

` + "```js\nlet x = 1  # no heading\n```" + `

- An item:

      A=1 B=2 make x

## Part 1: ` + "`code`, done" + `

<!-- commands below are not run: measurements -->

    go test

<!-- run: hub -->
    usercast serve

## A page
`

func TestReadFindsBlocksMarksLinksAndAnchors(t *testing.T) {
	var p Page
	p.parse(strings.Split(sample, "\n"))
	want := []struct {
		text, lang, mark string
		commands         bool
	}{
		{"usercast version\n\necho two\n", "", "run", true},
		{"[section]\nkey = value\n", "", "", false},
		{"curl http://example.com/\n", "sh", "not run: it needs a net", true},
		{"let x = 1  # no heading\n", "js", "", false},
		{"A=1 B=2 make x\n", "", "", true},
		{"go test\n", "", "not run: measurements", true},
		{"usercast serve\n", "", "run: hub", true},
	}
	if len(p.Blocks) != len(want) {
		t.Fatalf("%d blocks, want %d: %+v", len(p.Blocks), len(want), p.Blocks)
	}
	lines := strings.Split(sample, "\n")
	for i, b := range p.Blocks {
		w := want[i]
		if b.Text != w.text || b.Lang != w.lang || b.Mark != w.mark || b.IsCommands() != w.commands {
			t.Errorf("block %d: %+v, commands: %v, want %+v", i, b, b.IsCommands(), w)
		}
		first, _, _ := strings.Cut(b.Text, "\n")
		if got := strings.TrimSpace(lines[b.Line-1]); got != first {
			t.Errorf("block %d: line %d is %q, want %q", i, b.Line, got, first)
		}
	}
	if want := []Link{{3, "other.md#part-1"}, {3, "x.png"}}; !reflect.DeepEqual(p.Links, want) {
		t.Errorf("links %v, want %v", p.Links, want)
	}
	if want := []string{"a-page", "part-1-code-done", "a-page-1"}; !reflect.DeepEqual(p.Anchors, want) {
		t.Errorf("anchors %q, want %q", p.Anchors, want)
	}
}

func TestEllipsisMatchesAnyOutput(t *testing.T) {
	for _, test := range []struct {
		got, want string
		same      bool
	}{
		{"a\nb\n", "a\nb\n", true},
		{"a\nb\nc\n", "a\nb\n", false},
		{"a\nx\ny\nb\n", "a\n…\nb\n", true},
		{"id: 7f-1\n", "id: …-1\n", true},
		{"id: 7f-2\n", "id: …-1\n", false},
		{"(integer) 1\n", "(integer) 1\n", true},
		{"(integer) 11\n", "(integer) 1\n", false},
	} {
		if matches(test.got, test.want) != test.same {
			t.Errorf("%q and %q: want %v", test.got, test.want, test.same)
		}
	}
}
