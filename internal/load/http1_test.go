package load

import (
	"bytes"
	"net/http/httputil"
	"strings"
	"testing"
)

func TestChunksAreReadWhereverTheyAreCut(t *testing.T) {
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
			more = c.take(b[:n], func(b []byte) { got.Write(b) })
			b = b[n:]
		}
		if more || got.String() != want {
			t.Fatalf("in pieces of %d: more %v, %q", size, more, got.String())
		}
	}
	var c chunks
	c.take([]byte("A;name=value\r\n0123456789\r\n"), func(b []byte) {
		if string(b) != "0123456789" {
			t.Errorf("with an extension: %q", b)
		}
	})
}

func TestAnswersThatAreNoStream(t *testing.T) {
	for answer, why := range map[string]string{
		"HTTP/1.1 401 Unauthorized\r\nContent-Length: 16\r\n\r\n{\"error\":\"no\"}":                                 "status 401",
		"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>":                                                     "no event stream",
		"SSH-2.0-OpenSSH_9.6\r\n\r\n":                                                                               "no HTTP answer",
		strings.Repeat("x", maxHead+1):                                                                              "no HTTP answer",
		"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: busy\ndata: {\"reason\":\"clients\"}\n\n": "busy: clients",
	} {
		for _, size := range []int{1, len(answer)} {
			tally := newTally("0badcafe", 1, false)
			s := &stream{tally: tally, state: asking}
			c := http1{stream: s}
			more := true
			for b := []byte(answer); len(b) > 0 && more; b = b[min(size, len(b)):] {
				more = c.take(b[:min(size, len(b))])
			}
			if more || tally.unopenedBy[why] != 1 || tally.unopened != 1 || tally.streams != 0 || tally.opened != 0 {
				t.Errorf("%.60q: more %v, failed %v", answer, more, tally.unopenedBy)
			}
		}
	}
}
