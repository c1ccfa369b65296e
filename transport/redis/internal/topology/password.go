package topology

import (
	"errors"
	"strings"
	"sync/atomic"
)

// credentials are a user and the password, which can change. Safe for concurrent use.
type credentials struct {
	user      string // "": the default user; immutable
	passwords atomic.Pointer[passwords]
}

// passwords are that of new connections, and the one before: a connection that authenticates
// with it may still be in progress.
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

// redact removes the passwords from an error's text. An old Redis that does not
// know HELLO replies with its arguments, the password among them.
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
