package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// release is set at link time, with -X main.release=v1.2.3
var release string

// version returns the release, or the module version or revision of the build.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}

type versionCmd struct{}

func (versionCmd) Run(stdout io.Writer) error {
	_, err := fmt.Fprintf(stdout, "usercast %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
