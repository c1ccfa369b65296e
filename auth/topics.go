package auth

import (
	"errors"
	"slices"
	"strings"
)

// TopicsHeader is the header with the topics that a user is allowed to receive. Its value is a list as in RFC 9110,
// section 5.6.1, such as: activity, "with, comma", "". Elements can be quoted. "" allows messages without a topic.
const TopicsHeader = "X-User-Topics"

var errTopics = errors.New(TopicsHeader + " is not a list such as: activity, \"with, comma\"")

// parseTopics parses the lines of a TopicsHeader. Without lines it returns nil, which allows all topics. If the lines do
// not contain a topic, it returns an empty slice, which allows no topic.
func parseTopics(lines []string) ([]string, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	topics := []string{}
	for _, rest := range lines {
		for more := true; more; {
			var topic string
			var err error
			rest = strings.TrimLeft(rest, " \t")
			if strings.HasPrefix(rest, `"`) {
				if topic, rest, err = quoted(rest[1:]); err != nil {
					return nil, err
				}
				topics = append(topics, topic)
				var behind string
				if behind, rest, more = strings.Cut(rest, ","); strings.Trim(behind, " \t") != "" {
					return nil, errTopics
				}
				continue
			}
			topic, rest, more = strings.Cut(rest, ",")
			topic = strings.TrimRight(topic, " \t")
			if strings.Contains(topic, `"`) {
				return nil, errTopics
			}
			if topic != "" {
				topics = append(topics, topic)
			}
		}
	}
	return distinct(topics), nil
}

// distinct removes duplicates in place, because each costs memory and time while the stream is open. The number of
// topics is bounded by the size of their source: 16 KiB for a token, 64 KiB for a response or a request.
func distinct(topics []string) []string {
	seen := make(map[string]bool, len(topics))
	return slices.DeleteFunc(topics, func(topic string) bool {
		known := seen[topic]
		seen[topic] = true
		return known
	})
}

// quoted parses a quoted string without its first quote (RFC 9110, section 5.6.4).
func quoted(s string) (text, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], nil
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errTopics
}
