package archtest

import (
	"os"
	"regexp"
	"testing"
)

// The functions that CONTRIBUTING.md lists for the path of a message and of a request exist in the named files.
func TestContributingNamesExistingFunctions(t *testing.T) {
	page, err := os.ReadFile("../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)\\.(\\w+)` \\| `([^`]+\\.go)` ").FindAllStringSubmatch(string(page), -1)
	if len(rows) < 10 {
		t.Errorf("%d rows name a function, want 10 or more", len(rows))
	}
	for _, row := range rows {
		typ, method, file := row[1], row[2], row[3]
		text, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Error(err)
			continue
		}
		if !regexp.MustCompile(`(?m)^func \(\w+ \*?` + typ + `\) ` + method + `\(`).Match(text) {
			t.Errorf("%s does not define %s.%s", file, typ, method)
		}
	}
}
