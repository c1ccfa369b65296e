package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"usercast/internal/flags"
)

// flagForValue matches the parser's error for a value that looks like a flag.
var flagForValue = regexp.MustCompile(`^(--[a-z0-9-]+): expected .* value but got ("[^"]*") \(.*\); perhaps try `)

// missingArgument matches the parser's error for a missing argument.
var missingArgument = regexp.MustCompile(`^expected "(<.*>)"$`)

// missingValue matches the parser's error for a flag at the end of the command line without its value.
var missingValue = regexp.MustCompile(`^(--[a-z0-9-]+): expected .* value but got "EOL" `)

// missingPlaceholder matches the parser's other error for that.
var missingPlaceholder = regexp.MustCompile(`^(--[a-z0-9-]+): missing value, expecting `)

// plain replaces errors of the parser that are hard to understand.
func plain(err error) error {
	if strings.HasPrefix(err.Error(), "expected one of ") {
		return errors.New("missing command; run usercast --help for a list of commands")
	}
	if m := missingArgument.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("missing argument %s", m[1])
	}
	if m := missingValue.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("%s: missing value", m[1])
	}
	if m := missingPlaceholder.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("%s: missing value", m[1])
	}
	if m := flagForValue.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("%s: %s looks like a flag; for a value that starts with -, write %[1]s=VALUE", m[1], m[2])
	}
	return err
}

// report writes one line per error and returns the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	for _, err := range split(err) {
		fmt.Fprintf(stderr, "usercast: %v\n", err)
	}
	if errors.As(err, new(flags.UsageError)) {
		return exitUsage
	}
	return exitFailure
}

// split returns the errors that are joined in err.
func split(err error) []error {
	var usage flags.UsageError
	if errors.As(err, &usage) {
		err = usage.Err
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}
