//go:build !linux

package main

// useHugePages leaves that to the system.
func useHugePages() {}
