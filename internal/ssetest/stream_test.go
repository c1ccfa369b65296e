package ssetest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

const opening = ":\nretry: 3000\nevent: ping\ndata: {}\nid: a-1\n\n"

func serve(t *testing.T, status int, body string) (addr string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestStreamReadsEvents(t *testing.T) {
	addr := serve(t, 200, opening+"data: hello\nid: a-2\n\n:\nevent: ping\ndata: {}\n\nevent: gap\ndata: {\"reason\":\"x\"}\n\n")
	s, err := Open(addr, "user=42")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Want(t, "hello")
	s.WantGap(t, "x")
	s.WantEnd(t)
	if s.LastID != "a-2" || s.Comments != 2 {
		t.Errorf("last id %q, %d comments", s.LastID, s.Comments)
	}
	if s, err = Open(addr, "user=42&ping=event"); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Want(t, "hello")
	s.WantEvent(t, "ping", "{}")
	if err := s.Expect("message", "hello"); err == nil {
		t.Error("a gap is accepted as a message")
	}
}

func TestOpenRejectsOtherResponses(t *testing.T) {
	for name, addr := range map[string]string{
		"another status": serve(t, 401, opening), "no opening block": serve(t, 200, "data: hello\n\n"), "nothing": serve(t, 200, ""),
	} {
		if s, err := Open(addr, ""); err == nil {
			s.Close()
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestStreamContinuesWithAnotherReader(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		http.ReadRequest(bufio.NewReader(server))
		fmt.Fprintf(server, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", opening)
		fmt.Fprint(server, "data: a\n\n")
	}()
	s, err := OpenOn(client, "user=42")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Source(s.Conn)
	s.Want(t, "a")
	if s.LastID != "a-1" {
		t.Errorf("last id %q", s.LastID)
	}
}
