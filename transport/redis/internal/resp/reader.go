package resp

import (
	"bufio"
	"errors"
	"io"
	"strconv"
	"strings"
)

// ReadBuffer is the size of a Reader's buffer in bytes, and the longest line that it reads.
const ReadBuffer = maxLine

// A Reader reads replies part by part. It keeps only what the caller requests. After an *Error, its
// position is unknown, and it cannot be used.
type Reader struct {
	// Command is the command whose reply is being read. It appears in errors.
	Command string

	r       *bufio.Reader
	scratch []byte
}

// NewReader returns a Reader.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, ReadBuffer), scratch: make([]byte, 32<<10)}
}

// Bad returns the error of an invalid reply to Command.
func (r *Reader) Bad(format string, args ...any) error {
	return Errorf("reply to "+r.Command+": "+format, args...)
}

// Head is the first line of a reply or of a part of it.
type Head struct {
	Kind byte   // + - : $ *
	N    int64  // the number of :, the length of $ and *; -1: nil
	Text string // the text of + and -
}

// Head reads the first line of a reply or of a part of it.
func (r *Reader) Head() (h Head, err error) {
	line, err := r.r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			err = r.Bad("line too long")
		}
		return h, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return h, r.Bad("line without CR LF")
	}
	h.Kind, line = line[0], line[1:len(line)-2]
	switch h.Kind {
	case '+', '-':
		h.Text = string(line)
		return h, nil
	case ':', '$', '*':
		if h.N, err = strconv.ParseInt(string(line), 10, 64); err != nil {
			return h, r.Bad("malformed number")
		}
		if h.Kind != ':' && (h.N < -1 || h.N > maxBulk) {
			return h, r.Bad("invalid length %d", h.N)
		}
		return h, nil
	}
	return h, r.Bad("unknown type %q", h.Kind)
}

// Reply reads the first line of a reply. An error reply is a *ReplyError.
func (r *Reader) Reply() (h Head, err error) {
	h, err = r.Head()
	if err == nil && h.Kind == '-' {
		err = &ReplyError{r.Command, h.Text}
	}
	return h, err
}

// Expect reads the first line of a part, which must be of the given kind.
func (r *Reader) Expect(kind byte) (n int64, err error) {
	h, err := r.Head()
	if err == nil && h.Kind != kind {
		err = r.Bad("type %q, expected %q", h.Kind, kind)
	}
	return h.N, err
}

// Bulk reads the rest of a string of n bytes and returns it if it has at most keep bytes. It writes the
// whole string to the sink, if not nil, and ignores its errors.
func (r *Reader) Bulk(n, keep int64, sink io.Writer) (text string, err error) {
	if n < 0 {
		return "", r.Bad("nil instead of a string")
	}
	var kept strings.Builder
	if n <= keep {
		kept.Grow(int(n))
	}
	for left := n; left > 0; {
		chunk := r.scratch[:min(left, int64(len(r.scratch)))]
		if _, err := io.ReadFull(r.r, chunk); err != nil {
			return "", err
		}
		if sink != nil {
			_, _ = sink.Write(chunk)
		}
		if n <= keep {
			kept.Write(chunk)
		}
		left -= int64(len(chunk))
	}
	if _, err := io.ReadFull(r.r, r.scratch[:2]); err != nil {
		return "", err
	}
	if r.scratch[0] != '\r' || r.scratch[1] != '\n' {
		return "", r.Bad("a string does not have the announced length")
	}
	return kept.String(), nil
}

// String reads a string of at most most bytes.
func (r *Reader) String(most int64) (string, error) {
	n, err := r.Expect('$')
	if err == nil && n > most {
		err = r.Bad("string of %d bytes exceeds the limit", n)
	}
	if err != nil {
		return "", err
	}
	return r.Bulk(n, most, nil)
}

// Count reads a number that must not be negative.
func (r *Reader) Count() (uint64, error) {
	n, err := r.Expect(':')
	if err == nil && n < 0 {
		err = r.Bad("negative number")
	}
	return uint64(n), err
}

// Skip reads and discards a part of any kind.
func (r *Reader) Skip() error { return r.skip(0) }

func (r *Reader) skip(depth int) error {
	h, err := r.Head()
	if err != nil {
		return err
	}
	switch h.Kind {
	case '$':
		if h.N >= 0 {
			_, err = r.Bulk(h.N, -1, nil)
		}
	case '*':
		if depth == maxDepth {
			return r.Bad("arrays are nested too deeply")
		}
		for range h.N {
			if err := r.skip(depth + 1); err != nil {
				return err
			}
		}
	}
	return err
}
