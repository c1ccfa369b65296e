package auth

import (
	"fmt"
	"strings"
)

// CheckGroup is CheckUser for the name of a group. The error wraps ErrBadUser and contains the name, shortened. The name of
// the broadcast user is allowed: groups do not have a broadcast.
func CheckGroup(name string, separator byte) error {
	switch {
	case name == "":
		return badGroup(name, "it is empty", "list only groups that have a name")
	case name == "*":
		return badGroup(name, "* does not stand for all groups", "list each group; * is always reserved")
	case strings.IndexByte(name, separator) >= 0:
		return badGroup(name, fmt.Sprintf("it contains %q, which separates group and topic (--topic-separator)", separator),
			separatorHint(name, "group"))
	}
	return nil
}

// CheckGroups returns an error that wraps ErrBadUser if there are more than limit groups, or if CheckGroup returns one for
// any of them. The list must not contain duplicates. A limit that is not positive means no limit.
func CheckGroups(names []string, limit int, separator byte) error {
	if limit > 0 && len(names) > limit {
		return WithHint(describedError{ErrBadUser, fmt.Sprintf("this user is a member of %d groups, and at most %d are allowed (--max-groups)", len(names), limit)},
			"list only the groups whose messages pages receive, or raise --max-groups")
	}
	for _, name := range names {
		if err := CheckGroup(name, separator); err != nil {
			return err
		}
	}
	return nil
}

// badGroup returns an error that wraps ErrBadUser, with a hint.
func badGroup(name, reason, hint string) error {
	return WithHint(describedError{ErrBadUser, fmt.Sprintf("invalid group %q: %s", clip(name), reason)}, hint)
}
