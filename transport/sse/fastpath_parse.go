package sse

import (
	"bytes"
	"strings"
)

// isSimpleRequest reports whether text is one complete request without trailing bytes that begins with
// start (its method and path) and needs no special handling by a server. It is strict: all other
// requests are handled by net/http.
func isSimpleRequest(text, start []byte) bool {
	if !bytes.HasPrefix(text, start) || !bytes.HasSuffix(text, []byte("\r\n\r\n")) {
		return false
	}
	line, rest, _ := bytes.Cut(text[len(start):len(text)-2], []byte("\r\n"))
	query, ok := bytes.CutSuffix(line, []byte(" HTTP/1.1"))
	if !ok || len(query) > 0 && query[0] != '?' || !isPrintable(query, 0x21) {
		return false
	}
	hosts := 0
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found || !isName(name) || !isPrintable(value, 0x20) {
			return false
		}
		switch strings.ToLower(string(name)) {
		case "host":
			if hosts++; !isHost(bytes.Trim(value, " ")) {
				return false
			}
		case "connection":
			if v := bytes.Trim(value, " "); !bytes.EqualFold(v, []byte("keep-alive")) && !bytes.EqualFold(v, []byte("close")) {
				return false
			}
		case "content-length", "transfer-encoding", "trailer", "upgrade", "expect", "te", "http2-settings":
			return false
		}
	}
	return hosts == 1
}

// isPrintable reports whether all bytes of text are ASCII from least to '~'.
func isPrintable(text []byte, least byte) bool {
	for _, b := range text {
		if b < least || b > 0x7e {
			return false
		}
	}
	return true
}

// isName reports whether text consists of letters, digits and '-'. RFC 9110 allows more characters
// in the name of a header field.
func isName(text []byte) bool {
	for _, b := range text {
		if !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '-') {
			return false
		}
	}
	return len(text) > 0
}

// isHost reports whether text has only the characters of a host name or address with an optional port.
func isHost(text []byte) bool {
	for _, b := range text {
		if !(isName([]byte{b}) || strings.IndexByte(".:[]_", b) >= 0) {
			return false
		}
	}
	return len(text) > 0
}
