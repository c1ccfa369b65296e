package redis

import (
	"strings"
	"testing"
)

func TestParseControl(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]Control{
		`{"op":"disconnect","user":"42"}`:                {OpDisconnect, "42"},
		` {"user":"a b", "op":"disconnect", "later":1} `: {OpDisconnect, "a b"},
		`{"op":"disconnect","user":"*"}`:                 {OpDisconnect, "*"},
	} {
		if got, err := ParseControl(payload); err != nil || got != want {
			t.Errorf("%s: %+v, %v", payload, got, err)
		}
		if again, err := ParseControl(want.String()); err != nil || again != want {
			t.Errorf("%s is not read back: %+v, %v", want, again, err)
		}
	}
	for _, payload := range []string{
		"", "{}", "null", "[]", "42", `"disconnect"`, `{"op":"disconnect"}`, `{"op":"disconnect","user":""}`, `{"op":"disconnect","user":42}`,
		`{"op":"restart","user":"42"}`, `{"user":"42"}`, `{"op":"disconnect","user":"42"`, `{"op":"disconnect","user":"42"} x`,
		`{"op":"disconnect","user":"` + strings.Repeat("4", maxControl) + `"}`, "\xff",
	} {
		if got, err := ParseControl(payload); err == nil {
			t.Errorf("%.60q is parsed as %+v", payload, got)
		}
	}
}

// An accepted control command can be executed, and is the same after it was formatted and parsed again.
func FuzzParseControl(f *testing.F) {
	f.Add(`{"op":"disconnect","user":"42"}`)
	f.Add(`{"op":"disconnect","user":"42","user":"","OP":"x"} `)
	f.Add(`{"op":"disconnect","user":42}`)
	f.Add("{\"op\":\"disconnect\",\"user\":\"\xff\"}")
	f.Fuzz(func(t *testing.T, payload string) {
		c, err := ParseControl(payload)
		if err != nil {
			if c != (Control{}) {
				t.Errorf("%q: %+v in addition to %v", payload, c, err)
			}
			return
		}
		if c.Op != OpDisconnect || c.User == "" {
			t.Errorf("%q: %+v", payload, c)
		}
		if again, err := ParseControl(c.String()); len(c.String()) <= maxControl && (err != nil || again != c) {
			t.Errorf("%q: %+v, then %+v, %v", payload, c, again, err)
		}
	})
}
