package resp

import (
	"bufio"
	"net"
	"strconv"
	"time"
)

// A Writer writes commands. They are sent by Flush or when the buffer is full. It keeps its first error,
// which Flush and BulkBytes return.
type Writer struct {
	w      *bufio.Writer
	number []byte
}

// NewWriter returns a Writer with a buffer of size bytes. timeout applies to each write to the
// connection.
func NewWriter(conn net.Conn, timeout time.Duration, size int) *Writer {
	return &Writer{w: bufio.NewWriterSize(deadlineWriter{conn, timeout}, size)}
}

// deadlineWriter sets a deadline for each write.
type deadlineWriter struct {
	net.Conn
	timeout time.Duration
}

func (w deadlineWriter) Write(b []byte) (int, error) {
	_ = w.SetWriteDeadline(time.Now().Add(w.timeout))
	return w.Conn.Write(b)
}

// Command writes a command.
func (w *Writer) Command(args ...string) {
	w.Array(len(args))
	for _, arg := range args {
		w.Bulk(arg)
	}
}

// Array begins a command with n arguments, including its name.
func (w *Writer) Array(n int) { w.length('*', n) }

func (w *Writer) length(kind byte, n int) {
	w.number = append(w.number[:0], kind)
	w.number = strconv.AppendInt(w.number, int64(n), 10)
	w.number = append(w.number, '\r', '\n')
	_, _ = w.w.Write(w.number)
}

// Bulk writes one argument.
func (w *Writer) Bulk(s string) {
	w.length('$', len(s))
	_, _ = w.w.WriteString(s)
	_, _ = w.w.WriteString("\r\n")
}

// BulkBytes writes one argument. The caller may reuse b immediately.
func (w *Writer) BulkBytes(b []byte) error {
	w.length('$', len(b))
	_, _ = w.w.Write(b)
	_, err := w.w.WriteString("\r\n")
	return err
}

// Flush sends what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }
