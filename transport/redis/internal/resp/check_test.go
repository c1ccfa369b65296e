package resp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"usercast/internal/redistest"
)

// readConn is a connection that reads from text.
type readConn struct {
	net.Conn
	io.Reader
}

func (c readConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }

// pass returns the part of text that passes when it arrives in pieces, and why the rest does not.
func pass(text []byte, keep int, pushes bool, pieces func(io.Reader) io.Reader) (string, error) {
	passed, _, err := passAndCount(text, keep, pushes, pieces)
	return passed, err
}

// passAndCount also returns the number of complete replies.
func passAndCount(text []byte, keep int, pushes bool, pieces func(io.Reader) io.Reader) (passed string, complete int, err error) {
	_, c := Check(readConn{Reader: pieces(bytes.NewReader(text))}, 0)
	c.keep, c.pushes = keep, pushes
	all, err := io.ReadAll(c)
	return string(all), c.complete, err
}

func whole(r io.Reader) io.Reader { return r }

// randomPieces returns pieces of up to 100 KiB, most of them small.
func randomPieces(r io.Reader) io.Reader { return &pieceReader{r} }

type pieceReader struct{ io.Reader }

func (r *pieceReader) Read(b []byte) (int, error) {
	n := 1 + rand.IntN(1<<rand.IntN(17))
	return r.Reader.Read(b[:min(n, len(b))])
}

var errModel = errors.New("model")

// model is a separate implementation of RESP2: it returns the part of the first reply that must pass. io.EOF means that
// the reply is incomplete.
func model(text string, keep int, depth int) (passed, rest string, err error) {
	line, rest, found := strings.Cut(text, "\n")
	if !found {
		return "", "", io.EOF
	}
	if !strings.HasSuffix(line, "\r") || len(line) < 2 {
		return "", "", errModel
	}
	head, kind, line := line+"\n", line[0], line[1:len(line)-1]
	if kind == '+' || kind == '-' {
		if len(head) > maxLine {
			return "", "", errModel
		}
		return head, rest, nil
	}
	digits := strings.TrimPrefix(line, "-")
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil || len(digits) > 19 || strings.HasPrefix(digits, "+") {
		return "", "", errModel
	}
	switch {
	case kind == ':':
		return head, rest, nil
	case n == -1 && (kind == '$' || kind == '*'):
		return head, rest, nil
	case n < 0:
		return "", "", errModel
	case kind == '$' && n <= maxBulk:
		if int64(len(rest)) < n+2 {
			return "", "", io.EOF
		}
		if rest[n:n+2] != "\r\n" {
			return "", "", errModel
		}
		body := rest[:n]
		if n > int64(keep) {
			body = body[:keep]
			head = "$" + strings.Repeat("0", len(line)-len(strconv.Itoa(keep))) + strconv.Itoa(keep) + "\r\n"
		}
		return head + body + "\r\n", rest[n+2:], nil
	case kind == '*' && n == 0:
		return head, rest, nil
	case kind == '*' && n <= maxElements && depth < maxDepth:
		passed = head
		for range n {
			var one string
			if one, rest, err = model(rest, keep, depth+1); err != nil {
				return "", "", err
			}
			passed += one
		}
		return passed, rest, nil
	}
	return "", "", errModel
}

// isPush is a separate implementation of the check for pushes.
func isPush(reply string) bool {
	if reply[0] == '+' || reply[0] == '-' {
		return true
	}
	if reply[0] == '$' { // a reply to PING, unless it is nil
		n, _ := strconv.Atoi(reply[1:strings.IndexByte(reply, '\r')])
		return n >= 0
	}
	in := bufio.NewReader(strings.NewReader(reply))
	var kinds []byte
	var elements []string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			break
		}
		kinds = append(kinds, line[0])
		text := line[1 : len(line)-2]
		if line[0] == '$' {
			n, _ := strconv.Atoi(text)
			if n < 0 || strconv.Itoa(n) != text && len(elements) == 0 {
				return false
			}
			body := make([]byte, n+2)
			io.ReadFull(in, body)
			text = string(body[:n])
		}
		elements = append(elements, text)
	}
	if len(elements) < 2 {
		return false
	}
	want, ok := map[string]string{
		"4 pmessage": "*$$$$", "3 message": "*$$$", "2 pong": "*$$", "3 subscribe": "*$$:", "3 psubscribe": "*$$:",
	}[elements[0]+" "+elements[1]]
	return ok && string(kinds) == want
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte("*4\r\n$8\r\npmessage\r\n$6\r\nuser-*\r\n$7\r\nuser-42\r\n$1\r\nx\r\n+PONG\r\n"), true)
	f.Add([]byte("*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$20\r\n01234567890123456789\r\n-ERR x\r\n"), true)
	f.Add([]byte("*2\r\n*3\r\n:1\r\n$-1\r\n*-1\r\n*1\r\n*0\r\n$012\r\n0123456789ab\r\n"), false)
	f.Add([]byte(strings.Repeat("*1\r\n", maxDepth)+":1\r\n"), false)
	f.Add([]byte(strings.Repeat("*1\r\n", maxDepth+1)+":1\r\n"), false)
	f.Add([]byte(strings.Repeat("*1048576\r\n", 5)), false)
	for _, odd := range slices.Sorted(maps.Values(redistest.OddReplies)) {
		if len(odd) < 1000 {
			f.Add([]byte(odd), true)
			f.Add([]byte(odd), false)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, pushes bool) {
		const keep = 10
		want, rest, wantErr, replies := "", string(text), error(nil), 0
		for rest != "" && wantErr == nil {
			var passed, left string
			if passed, left, wantErr = model(rest, keep, 0); wantErr != nil {
				break
			}
			if pushes && !isPush(rest[:len(rest)-len(left)]) {
				wantErr = errModel
				break
			}
			want, rest, replies = want+passed, left, replies+1
		}
		got, err := pass(text, keep, pushes, whole)
		if bad := (*Error)(nil); err != nil && !errors.As(err, &bad) {
			t.Fatalf("an error that is not an *Error: %v", err)
		}
		// A part of the last reply, which is invalid or incomplete, may have passed.
		if !strings.HasPrefix(got, want) {
			t.Fatalf("of %q passed %q, want %q first", text, got, want)
		}
		switch {
		case wantErr == nil && (err != nil || got != want):
			t.Fatalf("of %q passed %q and %v, want %q", text, got, err, want)
		case wantErr == errModel && err == nil:
			// The model detects an invalid line only at its end, or by what is missing after it.
			if _, again := pass(append(bytes.Clone(text), "\r\n\r\n\x00\r\n"...), keep, pushes, whole); again == nil {
				t.Fatalf("%q passed as %q", text, got)
			}
		}
		for _, pieces := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader, randomPieces} {
			g, complete, e := passAndCount(text, keep, pushes, pieces)
			if g != got && err == nil || (e == nil) != (err == nil) {
				t.Fatalf("of %q in pieces passed %q and %v, at once %q and %v", text, g, e, got, err)
			}
			if pushes && e == nil && complete != replies {
				t.Fatalf("of %q %d replies are ready, want %d", text, complete, replies)
			}
		}
	})
}

// Strings that are longer than one read pass, whatever their pieces are.
func TestLongStringsPass(t *testing.T) {
	t.Parallel()
	var text, want strings.Builder
	for _, size := range []int{0, 1, connBuffer - 20, connBuffer, connBuffer + 1, 3*connBuffer + 7, 1 << 20} {
		body := strings.Repeat("x", size)
		text.WriteString("*4\r\n$8\r\npmessage\r\n$6\r\nuser-*\r\n$4\r\nuser\r\n$" + strconv.Itoa(size) + "\r\n" + body + "\r\n")
		cut := "$" + strconv.Itoa(size) + "\r\n" + body
		if size > 50_000 {
			cut = "$" + strings.Repeat("0", len(strconv.Itoa(size))-5) + "50000\r\n" + body[:50_000]
		}
		want.WriteString("*4\r\n$8\r\npmessage\r\n$6\r\nuser-*\r\n$4\r\nuser\r\n" + cut + "\r\n")
	}
	for range 50 {
		got, err := pass([]byte(text.String()), 50_000, true, randomPieces)
		if err != nil || got != want.String() {
			t.Fatalf("%d bytes passed and %v, want %d", len(got), err, want.Len())
		}
	}
}

func TestBoundsOfReplies(t *testing.T) {
	t.Parallel()
	arrays := func(n int) string { return strings.Repeat("*1048576\r\n", n) }
	for text, right := range map[string]bool{
		"*1048576\r\n": true, "*1048577\r\n": false,
		arrays(4): true, arrays(5): false,
		"$536870912\r\n": true, "$536870913\r\n": false,
		"+" + strings.Repeat("x", maxLine-3) + "\r\n": true, "+" + strings.Repeat("x", maxLine-2) + "\r\n": false,
		":9223372036854775807\r\n": true, ":9223372036854775808\r\n": false, ":18446744073709551616\r\n": false,
	} {
		if _, err := pass([]byte(text), MinKeep, false, whole); (err == nil) != right {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

// The time of the check per message, without any work on the message.
func BenchmarkCheck(b *testing.B) {
	const messages = 10_000
	text := bytes.Repeat([]byte("*4\r\n$8\r\npmessage\r\n$6\r\nuser-*\r\n$20\r\nuser-123456:activity\r\n$87\r\n"+strings.Repeat("x", 87)+"\r\n"), messages)
	buf := make([]byte, connBuffer)
	for name, checked := range map[string]bool{"checked": true, "unchecked": false} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				var conn net.Conn = readConn{Reader: bytes.NewReader(text)}
				if checked {
					_, c := Check(conn, 0)
					c.pushes = true
					conn = c
				}
				for {
					if _, err := conn.Read(buf); err != nil {
						break
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*messages), "ns/msg")
		})
	}
}
