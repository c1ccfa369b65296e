package load

import (
	"bytes"
	"net/http/httputil"
	"strings"
	"testing"
)

func TestChunksAreDecodedFromAnyPieces(t *testing.T) {
	var coded bytes.Buffer
	w := httputil.NewChunkedWriter(&coded)
	want := strings.Repeat("data: 0123456789\n\n", 40)
	for i := 0; i < len(want); i += 17 {
		w.Write([]byte(want[i:min(i+17, len(want))]))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for size := 1; size < 60; size++ {
		var c chunks
		var got bytes.Buffer
		more := true
		for b := coded.Bytes(); len(b) > 0 && more; {
			n := min(size, len(b))
			more = c.decode(b[:n], func(b []byte) { got.Write(b) })
			b = b[n:]
		}
		if more || got.String() != want {
			t.Fatalf("in pieces of %d: more %v, %q", size, more, got.String())
		}
	}
	var c chunks
	c.decode([]byte("A;name=value\r\n0123456789\r\n"), func(b []byte) {
		if string(b) != "0123456789" {
			t.Errorf("with an extension: %q", b)
		}
	})
}

func TestResponsesThatAreNotAStream(t *testing.T) {
	for response, reason := range map[string]Reason{
		"HTTP/1.1 401 Unauthorized\r\nContent-Length: 16\r\n\r\n{\"error\":\"no\"}":                                 statusReason(401),
		"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>":                                                     reasonNotStream,
		"SSH-2.0-OpenSSH_9.6\r\n\r\n":                                                                               reasonNotHTTP,
		strings.Repeat("x", maxHead+1):                                                                              reasonNotHTTP,
		"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: busy\ndata: {\"reason\":\"clients\"}\n\n": busyReason("clients"),
	} {
		for _, size := range []int{1, len(response)} {
			tally := newTally("0badcafe", 1, false)
			s := &stream{tally: tally, state: requested}
			c := http1{stream: s}
			more := true
			for b := []byte(response); len(b) > 0 && more; b = b[min(size, len(b)):] {
				more = c.receive(b[:min(size, len(b))])
			}
			if more || tally.unopenedBy[reason] != 1 || tally.unopened != 1 || tally.streams != 0 || tally.opened != 0 {
				t.Errorf("%.60q: more %v, failed %v", response, more, tally.unopenedBy)
			}
		}
	}
}
