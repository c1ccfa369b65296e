package topology

import (
	"errors"
	"strings"
)

// passwords are that of new connections, and the one before: what logs in with it may
// still be under way.
type passwords struct{ now, before string }

func (s *Server) password() string {
	if p := s.passwords.Load(); p != nil {
		return p.now
	}
	return ""
}

// SetPassword is for a password that was changed in Redis: whatever connects from now on
// logs in with it. Connections that are open stay, as Redis keeps them.
func (s *Server) SetPassword(password string) {
	s.passwords.Store(&passwords{now: password, before: s.password()})
}

// Redact takes the password out of an error's text. An old Redis that does not
// know HELLO answers with its arguments, the password among them.
func (s *Server) Redact(err error) error {
	p := s.passwords.Load()
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
