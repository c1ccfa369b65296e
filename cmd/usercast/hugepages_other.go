//go:build !linux

package main

// A hugeSpace leaves the size of pages to the system.
type hugeSpace struct{}

func newHugeSpace() *hugeSpace { return new(hugeSpace) }
func (*hugeSpace) watch()      {}
func (*hugeSpace) release()    {}
