// Package unixsocket listens on Unix sockets, and parses the addresses of listeners that name one.
package unixsocket

import (
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"syscall"
)

// prefix is the beginning of every address of a Unix socket.
const prefix = "unix:"

// Peer is the remote address of every connection of a Listener, as nginx writes it. The address of a client of
// a Unix socket is usually empty, and otherwise chosen by the client.
const Peer = prefix

// DefaultMode is the default of Address.Mode. A proxy in the group of the process, or of the directory if that has the
// setgid bit, can connect; other users cannot.
const DefaultMode = 0o660

// maxPath is the maximum length of a path in bytes. The path in the address of a socket ends with a NUL byte.
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// An Address is the address of a listener on a Unix socket.
type Address struct {
	Path string
	Mode fs.FileMode // permissions of the socket. To connect, a process needs the permission to write
}

// Is reports whether the address of a listener begins as one of a Unix socket.
func Is(address string) bool { return strings.HasPrefix(address, prefix) }

// Parse parses an address of the form unix:PATH or unix:PATH?mode=660. The error does not repeat the address.
func Parse(address string) (Address, error) {
	const example = "use a path such as unix:/run/usercast/usercast.sock"
	rest, ok := strings.CutPrefix(address, prefix)
	if !ok {
		return Address{}, fmt.Errorf("does not begin with %s; %s", prefix, example)
	}
	if strings.HasPrefix(rest, "///") { // as a URL
		rest = rest[2:]
	}
	path, query, _ := strings.Cut(rest, "?")
	switch {
	case path == "" || strings.HasSuffix(path, "/") || strings.HasPrefix(path, "//"):
		return Address{}, fmt.Errorf("the path of a socket is missing; %s", example)
	case strings.HasPrefix(path, "@"):
		return Address{}, fmt.Errorf("abstract sockets are not supported, because every user can connect to them; %s", example)
	case strings.ContainsRune(path, 0):
		return Address{}, fmt.Errorf("the path contains a NUL byte; %s", example)
	case len(path) > maxPath:
		return Address{}, fmt.Errorf("the path has %d bytes, and the system allows at most %d for a Unix socket; %s", len(path), maxPath, example)
	}
	a := Address{Path: path, Mode: DefaultMode}
	values, err := url.ParseQuery(query)
	if err != nil {
		return Address{}, fmt.Errorf("invalid text after the question mark; only ?mode= is supported, such as %s?mode=660", prefix+path)
	}
	for name, value := range values {
		mode, err := strconv.ParseUint(value[0], 8, 12)
		switch {
		case name != "mode" || len(value) > 1:
			return Address{}, fmt.Errorf("unknown parameter %q; only ?mode= is supported, such as %s?mode=660", name, prefix+path)
		case err != nil || mode&^0o777 != 0 || mode&0o200 == 0:
			return Address{}, fmt.Errorf("invalid mode %q; use an octal number in which the owner has write permission, such as 660, 600 or 666", value[0])
		}
		a.Mode = fs.FileMode(mode)
	}
	return a, nil
}

// Path returns the path of an address of a Unix socket, or "" for any other address.
func Path(address string) string {
	a, _ := Parse(address)
	return a.Path
}
