package load

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
)

// maxHead is more than any head that a hub sends.
const maxHead = 16 << 10

// An http1 is the reading side of one HTTP/1.1 connection that carries one stream.
type http1 struct {
	stream *stream
	head   []byte // of the answer, until it is whole
	chunks *chunks
}

// take takes in the next bytes and reports whether the connection is still of use.
func (c *http1) take(b []byte) bool {
	s := c.stream
	if s.state == asking {
		c.head = append(c.head, b...)
		i := bytes.Index(c.head, []byte("\r\n\r\n"))
		if i < 0 {
			if len(c.head) > maxHead {
				s.fail("no HTTP answer", "")
			}
			return s.state == asking
		}
		i += len("\r\n\r\n")
		b = c.head[i:]
		answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(c.head[:i])), nil)
		c.head = nil
		if err != nil {
			s.fail("no HTTP answer", "")
			return false
		}
		if !isStream(answer.StatusCode, answer.Header) {
			s.refuse(answer.StatusCode, answer.Header, b)
			return false
		}
		if len(answer.TransferEncoding) > 0 {
			c.chunks = new(chunks)
		}
		s.openUp()
	}
	if s.state != open { // it was not waited for any longer
		return false
	}
	if c.chunks == nil {
		s.take(b)
		return s.state == open
	}
	whole := c.chunks.take(b, s.take)
	return whole && s.state == open
}

func isStream(code int, h http.Header) bool {
	return code == http.StatusOK && strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
}

// refuse is for an answer that is not a stream.
func (s *stream) refuse(code int, h http.Header, body []byte) {
	why := status(code)
	if code == http.StatusOK {
		why = "no event stream"
	}
	if len(body) > 200 {
		body = body[:200]
	}
	said := string(bytes.TrimSpace(body))
	if h.Get("Transfer-Encoding") != "" || !strings.HasPrefix(said, "{") {
		said = ""
	}
	s.fail(why, said)
}

// chunks is RFC 9112's chunked coding, taken as it comes: httputil's reader asks for
// bytes, and so would hold a goroutine a stream.
type chunks struct {
	state chunkState
	left  int // bytes of the chunk that have not come
}

type chunkState uint8

const (
	inSize chunkState = iota
	inExtension
	inData
	afterData
	atEnd
)

// take hands on the data and reports whether more may come.
func (c *chunks) take(b []byte, data func([]byte)) bool {
	for len(b) > 0 {
		switch c.state {
		case inSize, inExtension:
			d := b[0]
			b = b[1:]
			if d == '\n' {
				c.state = inData
				if c.left == 0 {
					c.state = atEnd
				}
				continue
			}
			n := strings.IndexByte("0123456789abcdef", d)
			if 'A' <= d && d <= 'F' {
				n = int(d-'A') + 10
			}
			switch {
			case c.state == inExtension || d == '\r':
			case n >= 0 && c.left < 1<<27: // fits into 31 bits with this digit, too
				c.left = c.left<<4 | n
			default:
				c.state = inExtension
			}
		case inData:
			n := min(c.left, len(b))
			data(b[:n])
			b = b[n:]
			if c.left -= n; c.left == 0 {
				c.state = afterData
			}
		case afterData:
			if b[0] == '\n' {
				c.state = inSize
			}
			b = b[1:]
		case atEnd:
			return false
		}
	}
	return c.state != atEnd
}
