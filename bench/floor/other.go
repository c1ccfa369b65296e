//go:build !linux

package main

import "log"

func main() { log.Fatal("floor uses epoll: it runs on Linux only") }
