//go:build !linux

package main

import "log"

func main() { log.Fatal("lowerbound uses epoll: it runs on Linux only") }
