package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A page reads one stream as a browser would, with a parser of its own (WHATWG
// HTML, "Interpreting an event stream"). For one goroutine at a time.
type page struct {
	conn net.Conn // nil when an HTTP client has it
	head *http.Response
	body *bufio.Reader

	lastID   string
	retry    time.Duration
	comments int
	pings    bool // the page listens for ping
	opened   bool // the first block was read
}

// An event is what the browser would fire.
type event struct{ id, name, data string }

// openPage opens a stream and reads its opening block.
func (h *liveHub) openPage(t *testing.T, query string, headers ...string) *page {
	t.Helper()
	p, err := openPageAt(h.PublicAddr(), query, headers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// openPages opens n streams, several at a time.
func (h *liveHub) openPages(t *testing.T, n int, query func(i int) string) []*page {
	t.Helper()
	pages := make([]*page, n)
	t.Cleanup(func() {
		for _, p := range pages {
			if p != nil {
				p.close()
			}
		}
	})
	each(t, n, func(i int) (err error) {
		pages[i], err = openPageAt(h.PublicAddr(), query(i))
		return err
	})
	return pages
}

// openPageAt expects a stream that stays open.
func openPageAt(addr, query string, headers ...string) (*page, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return openPageOn(conn, query, headers...)
}

// openPageOn is openPageAt for a connection that was dialled already.
func openPageOn(conn net.Conn, query string, headers ...string) (*page, error) {
	p, err := askPage(conn, query, headers...)
	if err != nil {
		return nil, err
	}
	if p.head.StatusCode != http.StatusOK {
		p.close()
		return nil, fmt.Errorf("a stream is answered with %s", p.head.Status)
	}
	e, fires, err := p.block() // still under askPage's deadline
	if err == nil && (fires || p.lastID == "" || p.retry == 0) {
		err = fmt.Errorf("a stream begins with %+v, id %q, retry %v", e, p.lastID, p.retry)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// dialPage asks for a stream as a browser does, and reads the head of the answer.
func dialPage(addr, query string, headers ...string) (*page, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return askPage(conn, query, headers...)
}

func askPage(conn net.Conn, query string, headers ...string) (*page, error) {
	request := "GET /events?" + query + " HTTP/1.1\r\nHost: " + conn.RemoteAddr().String() + "\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n"
	for _, h := range headers {
		request += h + "\r\n"
	}
	p := &page{conn: conn, pings: strings.Contains(query, "ping=event")}
	conn.SetDeadline(time.Now().Add(patience))
	_, err := io.WriteString(conn, request+"\r\n")
	if err == nil {
		r := bufio.NewReaderSize(conn, 1024) // many pages are open at once
		if p.head, err = http.ReadResponse(r, nil); err == nil {
			p.body = r
			if p.head.ContentLength >= 0 || len(p.head.TransferEncoding) > 0 {
				p.body = bufio.NewReader(p.head.Body)
			}
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return p, nil
}

func (p *page) close() {
	if p.conn != nil {
		p.conn.Close()
	} else {
		p.head.Body.Close()
	}
}

// block reads up to the next blank line, or to a comment between two blocks, and says whether that fires
// an event that the page listens for. The error is io.EOF at the clean end of the stream.
func (p *page) block() (e event, fires bool, err error) {
	var data bytes.Buffer
	id := p.lastID
	for {
		line, err := p.body.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long := bytes.Clone(line)
			line, err = p.body.ReadBytes('\n')
			line = append(long, line...)
		}
		if err != nil {
			return event{}, false, err // what is not ended by a blank line is thrown away
		}
		line = line[:len(line)-1]
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(line) == 0:
			p.lastID = id
			e.id = id
			if e.name == "" {
				e.name = "message"
			}
			if fires {
				e.data = string(data.Bytes()[:data.Len()-1])
			}
			if e.name == "ping" {
				fires = p.pings && p.opened
			}
			p.opened = true
			return e, fires, nil
		case len(field) == 0:
			if p.comments++; p.opened {
				return event{}, false, nil
			}
		case string(field) == "data":
			data.Write(value)
			data.WriteByte('\n')
			fires = true
		case string(field) == "event":
			e.name = string(value)
		case string(field) == "id" && bytes.IndexByte(value, 0) < 0:
			id = string(value)
		case string(field) == "retry":
			ms, err := strconv.Atoi(string(value))
			if err != nil {
				return event{}, false, fmt.Errorf("retry: %w", err)
			}
			p.retry = time.Duration(ms) * time.Millisecond
		default:
			return event{}, false, fmt.Errorf("a browser would ignore %q", line)
		}
	}
}

// next is the next event that fires. Pings do not prolong the wait.
func (p *page) next() (event, error) {
	if p.conn != nil {
		p.conn.SetReadDeadline(time.Now().Add(patience))
	}
	for {
		if e, fires, err := p.block(); fires || err != nil {
			return e, err
		}
	}
}

// want reads one event for each of the given data, which arrive at onmessage.
func (p *page) want(t *testing.T, data ...string) {
	t.Helper()
	for _, want := range data {
		p.wantEvent(t, "message", want)
	}
}

func (p *page) wantEvent(t *testing.T, name, data string) {
	t.Helper()
	if err := p.expect(name, data); err != nil {
		t.Fatal(err)
	}
}

func (p *page) wantGap(t *testing.T, reason string) {
	t.Helper()
	p.wantEvent(t, "gap", `{"reason":"`+reason+`"}`)
}

// expect is wantEvent for goroutines of their own.
func (p *page) expect(name, data string) error {
	e, err := p.next()
	if err != nil {
		return fmt.Errorf("waiting for %s %.80q: %w", name, data, err)
	}
	if e.name != name || e.data != data {
		return fmt.Errorf("got %s %.80q, want %s %.80q", e.name, e.data, name, data)
	}
	return nil
}

// wantEnd wants the stream to end cleanly, with nothing more.
func (p *page) wantEnd(t *testing.T) {
	t.Helper()
	if e, err := p.next(); !errors.Is(err, io.EOF) {
		t.Fatalf("want the stream's end, got %+v, %v", e, err)
	}
}

// each runs f for 0…n-1, many at a time, and fails the test with the first error.
func each(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	const workers = 32
	var (
		wg    sync.WaitGroup
		work  = make(chan int)
		first = make(chan error, 1)
	)
	for range min(n, workers) {
		wg.Go(func() {
			for i := range work {
				if err := f(i); err != nil {
					select {
					case first <- fmt.Errorf("number %d: %w", i, err):
					default:
					}
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	select {
	case err := <-first:
		t.Fatal(err)
	default:
	}
}
