package envfile

import (
	"maps"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	got, err := Parse([]byte(`
# a comment
; and another
U_A=plain
 U_B = spaces around
U_C="in quotes = # kept "
U_D='single "inner"'
U_E=
U_F=https://a.example,https://b.example # part of the value
`), "U_")
	want := map[string]string{
		"U_A": "plain", "U_B": "spaces around", "U_C": "in quotes = # kept ", "U_D": `single "inner"`, "U_E": "",
		"U_F": "https://a.example,https://b.example # part of the value",
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Parse([]byte("\r\nU_A=1\r\nU_B=2"), "U_"); err != nil || got["U_A"] != "1" || got["U_B"] != "2" {
		t.Errorf("CRLF: %q, %v", got, err)
	}
}

func TestAmbiguousLinesAreErrorsWithoutValues(t *testing.T) {
	const secret = "correct-horse"
	for text, want := range map[string]string{
		"\nnothing":                          "line 2: expected NAME=value",
		"PATH=" + secret:                     `line 1: the name "PATH" must start with U_`,
		"export U_A=" + secret:               "must start with U_",
		"U_A=1\nU_A=" + secret:               "line 2: duplicate setting U_A",
		`U_A="` + secret:                     "line 1: the value of U_A",
		`U_A="` + secret + `" x`:             "line 1: the value of U_A",
		`U_A="` + secret + `\"x"`:            "line 1: the value of U_A",
		`U_A="`:                              "line 1: the value of U_A",
		"U_A=" + secret + `\`:                "line 1: the value of U_A",
		"U_A=" + secret + "\xff":             "line 1: invalid UTF-8",
		"U_A=1\n" + strings.Repeat("#", 2e6): "longer than",
	} {
		values, err := Parse([]byte(text), "U_")
		if err == nil || values != nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%.40q: %v, %v; want an error with %q", text, values, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("U_A=1\n#\nU_B='x'\n")
	f.Fuzz(func(t *testing.T, text string) {
		values, err := Parse([]byte(text), "U_")
		if err != nil {
			return
		}
		// Values that are written again have the same meaning.
		var again strings.Builder
		for name, value := range values {
			quote := `"`
			if strings.Contains(value, quote) {
				quote = "'"
			}
			if strings.Contains(value, quote) || strings.Contains(value, `\`) {
				return // cannot be quoted
			}
			again.WriteString(name + "=" + quote + value + quote + "\n")
		}
		second, err := Parse([]byte(again.String()), "U_")
		if err != nil || !maps.Equal(values, second) {
			t.Errorf("%q was parsed as %q, and that as %q, %v", text, values, second, err)
		}
	})
}
