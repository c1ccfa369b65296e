package auth

import (
	"slices"
	"strings"
	"testing"
)

// FuzzList checks that the elements of each list, quoted and written as a list, are the same elements.
func FuzzList(f *testing.F) {
	for _, seed := range []string{"", `a, b:c,,"d,\"e", ""`, `"a" b`, `a"b"`, `"\`, "\t,\"\t\"\t", `"\\",a,a`} {
		f.Add(seed)
	}
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	f.Fuzz(func(t *testing.T, line string) {
		list, err := parseList("X", []string{line})
		if err != nil {
			if !strings.Contains(line, `"`) {
				t.Errorf("%q, without quotes: %v", line, err)
			}
			return
		}
		text := ""
		for i, element := range list {
			if slices.Contains(list[:i], element) {
				t.Errorf("%q: %q is in the list twice", line, element)
			}
			text += `"` + quote.Replace(element) + `" ,`
		}
		for _, lines := range [][]string{{text}, {text, line}} {
			if again, err := parseList("X", lines); err != nil || !slices.Equal(again, list) {
				t.Errorf("%q: %q; written as %q: %q, %v", line, list, lines, again, err)
			}
		}
	})
}
