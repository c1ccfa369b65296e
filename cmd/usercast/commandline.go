package main

import (
	"regexp"
	"slices"
	"strings"
)

// A commandLine is visible to all users of the machine, with ps.
type commandLine []string

var passwordInURL = regexp.MustCompile(`://[^/@]*:[^/@]+@`)

const passwordSeen = "a password in a URL on the command line can be read by everybody on this machine; give the flag as an environment variable, or the password in a file"

// holdsPassword reports whether it has a URL with a password.
func (c commandLine) holdsPassword() bool {
	return slices.ContainsFunc(c, passwordInURL.MatchString)
}

const headerSeen = "a header on the command line can be read by everybody on this machine; give it as USERCAST_HEADER in the environment"

// holdsHeader reports whether --header is on the command line, rather than in the environment.
func (c commandLine) holdsHeader() bool {
	return slices.ContainsFunc(c, func(arg string) bool {
		return arg == "--header" || strings.HasPrefix(arg, "--header=")
	})
}
