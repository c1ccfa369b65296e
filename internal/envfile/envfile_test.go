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
U_F=https://a.example,https://b.example # no comment here
`), "U_")
	want := map[string]string{
		"U_A": "plain", "U_B": "spaces around", "U_C": "in quotes = # kept ", "U_D": `single "inner"`, "U_E": "",
		"U_F": "https://a.example,https://b.example # no comment here",
	}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Parse([]byte("\r\nU_A=1\r\nU_B=2"), "U_"); err != nil || got["U_A"] != "1" || got["U_B"] != "2" {
		t.Errorf("CRLF: %q, %v", got, err)
	}
}

func TestWhatReadersDoNotAgreeAboutIsAnErrorWithItsLine(t *testing.T) {
	const secret = "correct-horse"
	for text, says := range map[string]string{
		"\nnothing":                          "line 2 is not",
		"PATH=" + secret:                     `line 1: "PATH" does not begin with U_`,
		"export U_A=" + secret:               "does not begin with U_",
		"U_A=1\nU_A=" + secret:               "line 2 gives U_A a second time",
		`U_A="` + secret:                     "line 1: the value of U_A",
		`U_A="` + secret + `" x`:             "line 1: the value of U_A",
		`U_A="` + secret + `\"x"`:            "line 1: the value of U_A",
		`U_A="`:                              "line 1: the value of U_A",
		"U_A=" + secret + `\`:                "line 1: the value of U_A",
		"U_A=" + secret + "\xff":             "line 1 is not text",
		"U_A=1\n" + strings.Repeat("#", 2e6): "longer than",
	} {
		values, err := Parse([]byte(text), "U_")
		if err == nil || values != nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%.40q: %v, %v; want an error with %q", text, values, err, says)
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
		// What was read, written plainly, is read alike.
		var again strings.Builder
		for name, value := range values {
			quote := `"`
			if strings.Contains(value, quote) {
				quote = "'"
			}
			if strings.Contains(value, quote) || strings.Contains(value, `\`) {
				return // cannot be put into quotes
			}
			again.WriteString(name + "=" + quote + value + quote + "\n")
		}
		second, err := Parse([]byte(again.String()), "U_")
		if err != nil || !maps.Equal(values, second) {
			t.Errorf("%q was read as %q, and that as %q, %v", text, values, second, err)
		}
	})
}
