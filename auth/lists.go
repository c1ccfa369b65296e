package auth

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// TopicsHeader is the header with the topics that a user is allowed to receive, GroupsHeader the one with the groups of
// which the user is a member. The value of each is a list as in RFC 9110, section 5.6.1, such as: activity, "with, comma".
// Elements can be quoted. In TopicsHeader, "" allows messages without a topic.
const (
	TopicsHeader = "X-User-Topics"
	GroupsHeader = "X-User-Groups"
)

// topicsIn returns the list in TopicsHeader, or nil without this header. decode reads each line.
func topicsIn(h http.Header, decode func(string) (string, error)) (_ []string, err error) {
	lines := slices.Clone(h.Values(TopicsHeader))
	for n := range lines {
		if lines[n], err = decode(lines[n]); err != nil {
			return nil, fmt.Errorf("%s %w", TopicsHeader, err)
		}
	}
	return parseList(TopicsHeader, lines)
}

// groupsIn returns the list in GroupsHeader. decode reads each name.
func groupsIn(h http.Header, decode func(string) (string, error)) ([]string, error) {
	names, err := parseList(GroupsHeader, h.Values(GroupsHeader))
	for n, name := range names {
		if names[n], err = decode(name); err != nil {
			return nil, badGroup(name, "it "+err.Error(), cmp.Or(Hint(err), "list only names in UTF-8"))
		}
	}
	return distinct(names), err
}

// parseList parses the lines of a header with a list, without duplicates. Without lines it returns nil. If the lines do not
// contain an element, it returns an empty slice.
func parseList(header string, lines []string) ([]string, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	list := []string{}
	for _, rest := range lines {
		for more := true; more; {
			var element string
			rest = strings.TrimLeft(rest, " \t")
			if strings.HasPrefix(rest, `"`) {
				var ok bool
				if element, rest, ok = quoted(rest[1:]); !ok {
					return nil, notList(header)
				}
				list = append(list, element)
				var behind string
				if behind, rest, more = strings.Cut(rest, ","); strings.Trim(behind, " \t") != "" {
					return nil, notList(header)
				}
				continue
			}
			element, rest, more = strings.Cut(rest, ",")
			element = strings.TrimRight(element, " \t")
			if strings.Contains(element, `"`) {
				return nil, notList(header)
			}
			if element != "" {
				list = append(list, element)
			}
		}
	}
	return distinct(list), nil
}

func notList(header string) error {
	return fmt.Errorf("%s is not a list such as: activity, \"with, comma\"", header)
}

// distinct removes duplicates in place, because each costs memory and time while the stream is open. The number of
// elements is bounded by the size of their source: 16 KiB for a token, 64 KiB for a response or a request.
func distinct(list []string) []string {
	seen := make(map[string]bool, len(list))
	return slices.DeleteFunc(list, func(element string) bool {
		known := seen[element]
		seen[element] = true
		return known
	})
}

// quoted parses a quoted string without its first quote (RFC 9110, section 5.6.4). ok is false if its end is missing.
func quoted(s string) (text, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}
