package main

import (
	"regexp"
	"slices"
	"strings"
)

// A commandLine is the arguments of the process, which every user of the host can read with ps.
type commandLine []string

var passwordInURL = regexp.MustCompile(`://[^/@]*:[^/@]+@|://.*[?&]sentinel_password=.`)

const passwordVisible = "a password in a URL on the command line is visible to every user of this host; set the flag in the environment, or put the password into a file"

// holdsPassword reports whether an argument is a URL with a password.
func (c commandLine) holdsPassword() bool {
	return slices.ContainsFunc(c, passwordInURL.MatchString)
}

const headerVisible = "a header on the command line is visible to every user of this host; set USERCAST_HEADER in the environment instead"

// holdsHeader reports whether --header is set on the command line.
func (c commandLine) holdsHeader() bool {
	return slices.ContainsFunc(c, func(arg string) bool {
		return arg == "--header" || strings.HasPrefix(arg, "--header=")
	})
}
