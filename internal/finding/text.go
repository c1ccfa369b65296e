package finding

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// IsPrintable reports whether a terminal shows s as it is: s is valid UTF-8 without control characters, line breaks, and
// characters that change the order of the text.
func IsPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Name returns a name that an app or Redis has chosen for a report: as it is if it is printable, and otherwise as a Go
// string literal.
func Name(s string) string {
	if IsPrintable(s) {
		return s
	}
	return strconv.Quote(s)
}

// Line returns a line of a report. All characters that are not printable are escaped as in a Go string literal.
func Line(s string) string {
	if IsPrintable(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch part := s[:n]; {
		case r == utf8.RuneError && n == 1 || !unicode.IsPrint(r):
			quoted := strconv.Quote(part)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteString(part)
		}
		s = s[n:]
	}
	return b.String()
}

// ShellQuoted returns s as one word of a POSIX shell, in single quotes.
func ShellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
