package topology

import (
	"errors"
	"strings"
	"sync/atomic"
)

// credentials are a user and a password that can change. Safe for concurrent use.
type credentials struct {
	user      string // "": the default user; immutable
	passwords atomic.Pointer[passwords]
}

// passwords are the current password and the previous one, which may still be in use by a connection
// that is authenticating.
type passwords struct{ now, before string }

func (c *credentials) password() string {
	if p := c.passwords.Load(); p != nil {
		return p.now
	}
	return ""
}

func (c *credentials) setPassword(password string) {
	c.passwords.Store(&passwords{now: password, before: c.password()})
}

// redact removes the passwords from the text of an error. An old Redis that does not support HELLO
// replies with the arguments, which include the password.
func (c *credentials) redact(err error) error {
	p := c.passwords.Load()
	if p == nil {
		return err
	}
	text := err.Error()
	for _, password := range []string{p.now, p.before} {
		if password != "" {
			text = strings.ReplaceAll(text, password, "***")
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}
