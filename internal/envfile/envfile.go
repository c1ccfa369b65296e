// Package envfile parses files of NAME=value lines, in the format that systemd (EnvironmentFile=) and Docker (--env-file)
// also accept.
package envfile

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Parse reads settings whose names start with prefix. It ignores empty lines and lines that start with # or ;. A value is
// the rest of the line after =, without surrounding spaces and without one pair of surrounding quotes. Parse does not
// expand variables. An error contains the line number, but never a value, which may be secret.
//
// Programs that read such files differ in how they handle an unclosed quote, text after a closing quote, and a \ at the
// end of a line. Parse rejects these, so that a file means the same to all of them.
func Parse(text []byte, prefix string) (map[string]string, error) {
	values := make(map[string]string)
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		switch {
		case !ok:
			return nil, fmt.Errorf("line %d: expected NAME=value", n)
		case !strings.HasPrefix(name, prefix):
			return nil, fmt.Errorf("line %d: the name %.40q must start with %s", n, name, prefix)
		case !utf8.ValidString(line) || strings.ContainsRune(line, 0):
			return nil, fmt.Errorf("line %d: invalid UTF-8 or a NUL byte", n)
		}
		if _, twice := values[name]; twice {
			return nil, fmt.Errorf("line %d: duplicate setting %s", n, name)
		}
		if value, ok = unquote(strings.TrimSpace(value)); !ok {
			return nil, fmt.Errorf("line %d: the value of %s has unbalanced quotes or ends with a \\", n, name)
		}
		values[name] = value
	}
	if lines.Err() != nil {
		return nil, fmt.Errorf("a line is longer than 1 MiB")
	}
	return values, nil
}

// unquote removes one pair of surrounding quotes. It returns false for unbalanced quotes and for a \ at the end.
func unquote(value string) (string, bool) {
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return value, !strings.HasSuffix(value, `\`)
	}
	quote := value[:1]
	inner, ok := strings.CutSuffix(value[1:], quote)
	return inner, ok && !strings.ContainsAny(inner, quote+`\`)
}
