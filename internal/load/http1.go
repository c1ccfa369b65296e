package load

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
)

// maxHead is the maximum size of the response headers. A hub sends less.
const maxHead = 16 << 10

// An http1 is the reading side of one HTTP/1.1 connection that carries one stream.
type http1 struct {
	stream *stream
	head   []byte // the response headers received so far
	chunks *chunks
}

// receive processes the next bytes. It returns false if the connection is no longer needed.
func (c *http1) receive(b []byte) bool {
	s := c.stream
	if s.state == requested {
		c.head = append(c.head, b...)
		i := bytes.Index(c.head, []byte("\r\n\r\n"))
		if i < 0 {
			if len(c.head) > maxHead {
				s.fail(reasonNotHTTP, "")
			}
			return s.state == requested
		}
		i += len("\r\n\r\n")
		b = c.head[i:]
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(c.head[:i])), nil)
		c.head = nil
		if err != nil {
			s.fail(reasonNotHTTP, "")
			return false
		}
		if !isStream(resp.StatusCode, resp.Header) {
			s.reject(resp.StatusCode, resp.Header, b)
			return false
		}
		if len(resp.TransferEncoding) > 0 {
			c.chunks = new(chunks)
		}
		s.markOpen()
	}
	if s.state != open { // the wait for the response has timed out
		return false
	}
	if c.chunks == nil {
		s.receive(b)
		return s.state == open
	}
	whole := c.chunks.decode(b, s.receive)
	return whole && s.state == open
}

func isStream(code int, h http.Header) bool {
	return code == http.StatusOK && strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
}

// reject records a response that is not a stream.
func (s *stream) reject(code int, h http.Header, body []byte) {
	reason := statusReason(code)
	if code == http.StatusOK {
		reason = reasonNotStream
	}
	if len(body) > 200 {
		body = body[:200]
	}
	example := string(bytes.TrimSpace(body))
	if h.Get("Transfer-Encoding") != "" || !strings.HasPrefix(example, "{") {
		example = ""
	}
	s.fail(reason, example)
}

// chunks decodes the chunked transfer coding (RFC 9112, section 7.1) incrementally. The reader of httputil pulls bytes, so
// it would need a goroutine per stream.
type chunks struct {
	state chunkState
	left  int // bytes of the chunk that have not arrived
}

type chunkState uint8

const (
	inSize chunkState = iota
	inExtension
	inData
	afterData
	atEnd
)

// decode passes the decoded bytes to data. It returns false after the last chunk.
func (c *chunks) decode(b []byte, data func([]byte)) bool {
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
			case n >= 0 && c.left < 1<<27: // with this digit, it still fits into 31 bits
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
