//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
)

// subscribe reads messages until the program ends. A message is an array of "pmessage", pattern, channel and payload. user
// is valid until publish returns. frame stays valid, because writers can still hold it.
func subscribe(address string, publish func(user, frame []byte)) {
	conn, err := net.Dial("tcp", address)
	must("connect to Redis", err)
	_, err = fmt.Fprint(conn, "PSUBSCRIBE user-*\r\n")
	must("subscribe", err)
	in := bufio.NewReaderSize(conn, 1<<20) // the longest payload
	number(in, '*')
	bulk(in)
	bulk(in)
	number(in, ':')
	for user := []byte(nil); ; {
		number(in, '*')
		bulk(in)
		bulk(in)
		name, _, _ := bytes.Cut(bytes.TrimPrefix(bulk(in), []byte("user-")), []byte(":"))
		user = append(user[:0], name...)
		payload := bytes.ReplaceAll(bulk(in), []byte("\n"), []byte("\ndata: "))
		publish(user, slices.Concat([]byte("data: "), payload, []byte("\n\n")))
	}
}

// number reads a line of one RESP type.
func number(in *bufio.Reader, kind byte) int {
	line, err := in.ReadSlice('\n')
	must("read from Redis", err)
	n, err := strconv.Atoi(string(bytes.TrimSpace(bytes.TrimPrefix(line, []byte{kind})))) // fails for another type
	must("parse the response of Redis", err)
	return n
}

// bulk reads a string, which is valid until the next read.
func bulk(in *bufio.Reader) []byte {
	n := number(in, '$')
	text, err := in.Peek(n + len("\r\n"))
	must("read from Redis", err)
	in.Discard(len(text)) // the bytes are buffered
	return text[:n]
}
