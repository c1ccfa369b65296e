package topology

import (
	"errors"
	"testing"
)

// When the password is replaced, a connection may still be authenticating with the previous one.
func TestNeitherPasswordIsInAnError(t *testing.T) {
	t.Parallel()
	s, err := Parse("redis://:before@127.0.0.1:6379", Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.SetPassword("later")
	for text, want := range map[string]string{
		"ERR unknown command HELLO, with args: 2 auth x later":  "ERR unknown command HELLO, with args: 2 auth x ***",
		"ERR unknown command HELLO, with args: 2 auth x before": "ERR unknown command HELLO, with args: 2 auth x ***",
		"WRONGPASS": "WRONGPASS",
	} {
		if got := s.Redact(errors.New(text)); got.Error() != want {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	if s.login.password() != "later" {
		t.Errorf("the current password is %q", s.login.password())
	}
}
