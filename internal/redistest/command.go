package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// Try is Do for a command that may fail. It implements RESP2 over a plain socket, because tests call it often and
// a go-redis client takes much longer.
func (s *Server) Try(args ...any) (any, error) {
	conn, err := net.DialTimeout("tcp", s.Addr(), patience)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	w := bufio.NewWriter(conn)
	writeCommand(w, "AUTH", adminUser, adminPassword)
	writeCommand(w, args...)
	if err := w.Flush(); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	if _, err := readValue(r); err != nil {
		return nil, fmt.Errorf("AUTH: %w", err)
	}
	return readValue(r)
}

// writeCommand writes numbers and strings as text. It does not copy byte slices.
func writeCommand(w *bufio.Writer, args ...any) {
	fmt.Fprintf(w, "*%d\r\n", len(args))
	for _, arg := range args {
		b, ok := arg.([]byte)
		if !ok {
			b = fmt.Append(nil, arg)
		}
		fmt.Fprintf(w, "$%d\r\n", len(b))
		w.Write(b)
		w.WriteString("\r\n")
	}
}

// errNil represents the reply nil.
var errNil = errors.New("nil")

// readValue returns a string, an int64, or a slice of such values and nil.
func readValue(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < len("+\r\n") {
		return nil, errReply
	}
	kind, text := line[0], line[1:len(line)-len("\r\n")]
	switch kind {
	case '+':
		return text, nil
	case '-':
		return nil, errors.New(text)
	case ':', '$', '*':
	default:
		return nil, errReply
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		return nil, errReply
	case kind == ':':
		return n, nil
	case n < 0:
		return nil, errNil
	case kind == '$':
		b := make([]byte, n+int64(len("\r\n")))
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		return string(b[:n]), nil
	}
	values := make([]any, n)
	for i := range values {
		if values[i], err = readValue(r); err != nil && err != errNil {
			return nil, err
		}
	}
	return values, nil
}
