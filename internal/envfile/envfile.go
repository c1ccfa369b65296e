// Package envfile reads files of NAME=value lines, as systemd's EnvironmentFile= and
// Docker's --env-file take them.
package envfile

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Parse reads settings whose names begin with prefix. Lines that are empty or begin
// with # or ; are comments. A value is what follows the = as it stands, without space around
// it, and without one pair of quotes around that; nothing in it is expanded. An error
// names the line and holds no value, for one may be a secret.
//
// What those who read such files do not agree about is an error, so that a file means the same to
// each: a quote that is not closed, text after a closing quote, and a \ at a line's end.
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
			return nil, fmt.Errorf("line %d is not NAME=value", n)
		case !strings.HasPrefix(name, prefix):
			return nil, fmt.Errorf("line %d: %.40q does not begin with %s", n, name, prefix)
		case !utf8.ValidString(line) || strings.ContainsRune(line, 0):
			return nil, fmt.Errorf("line %d is not text", n)
		}
		if _, twice := values[name]; twice {
			return nil, fmt.Errorf("line %d gives %s a second time", n, name)
		}
		if value, ok = unquote(strings.TrimSpace(value)); !ok {
			return nil, fmt.Errorf("line %d: the value of %s begins with a quote that does not end it, or ends with a \\", n, name)
		}
		values[name] = value
	}
	if lines.Err() != nil {
		return nil, fmt.Errorf("a line is longer than 1 MiB")
	}
	return values, nil
}

// unquote takes one pair of quotes off.
func unquote(value string) (string, bool) {
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return value, !strings.HasSuffix(value, `\`)
	}
	quote := value[:1]
	inner, ok := strings.CutSuffix(value[1:], quote)
	return inner, ok && !strings.ContainsAny(inner, quote+`\`)
}
