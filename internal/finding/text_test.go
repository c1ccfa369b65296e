package finding_test

import (
	"os/exec"
	"testing"

	"usercast/internal/finding"
)

func TestNamesAndLinesArePrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct{ name, line string }{
		"user-42:x":       {"user-42:x", "user-42:x"},
		`a "b" \n`:        {`a "b" \n`, `a "b" \n`},
		"ü € 名":           {"ü € 名", "ü € 名"},
		"":                {"", ""},
		"\x1b[2J":         {`"\x1b[2J"`, `\x1b[2J`},
		"a\a\"b":          {`"a\a\"b"`, `a\a"b`},
		"a\n  ok    b":    {`"a\n  ok    b"`, `a\n  ok    b`},
		"\xffü":           {`"\xffü"`, `\xffü`},
		"\ufffd":          {"\ufffd", "\ufffd"},
		"a\u202eb\u00a0c": {`"a\u202eb\u00a0c"`, `a\u202eb\u00a0c`},
	} {
		if got := finding.Name(in); got != want.name {
			t.Errorf("Name(%q) = %s, want %s", in, got, want.name)
		}
		if got := finding.Line(in); got != want.line {
			t.Errorf("Line(%q) = %s, want %s", in, got, want.line)
		}
	}
}

// The reference is a shell.
func TestShellQuotedIsOneWord(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"user-", "", "it's_user-", "x';touch pwn;'user-", "$(id)`id`\\", "a b\tc\nd", "'"} {
		out, err := exec.Command("sh", "-c", "printf %s "+finding.ShellQuoted(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("ShellQuoted(%q) is %q in a shell (%v)", s, out, err)
		}
	}
}
