package main

import "testing"

func TestPasswordsOnTheCommandLineAreFound(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]bool{
		"redis://:secret@host":                                     true,
		"--redis=redis://user:secret@host":                         true,
		"redis+sentinel://host/main?sentinel_password=secret":      true,
		"redis+sentinel://host/main?db=1&sentinel_password=secret": true,
		"redis+sentinel://host/main?sentinel_user=hub":             false,
		"redis://host:6379":                                        false,
		"--redis-sentinel-password-file":                           false,
	} {
		if got := (commandLine{"serve", arg}).holdsPassword(); got != want {
			t.Errorf("%s: %v", arg, got)
		}
	}
}
