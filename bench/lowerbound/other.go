//go:build !linux

package main

import "log"

func main() { log.Fatal("lowerbound uses epoll, so it runs only on Linux") }
