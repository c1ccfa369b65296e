package clients

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"testing"
)

// A relay is the hub's address for one client. It forwards requests for /events event by event, one request per
// connection, and serves the page at all other paths.
type relay struct {
	addr   string
	target string
	script string // of the page at /reopens
	wg     sync.WaitGroup

	// Guarded by mu.
	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	conns    map[net.Conn]bool
	paused   chan struct{} // closed when relaying resumes; nil if not paused
	cut      *cut          // how to interrupt the next message
	status   int           // status of responses instead of relaying; 0: relay
	opened   int           // streams that have begun
	busy     int           // streams that were rejected
	requests int
	reopened int      // requests of new EventSource objects with a position
	ids      []string // Last-Event-ID of each request
	cuts     []string // the part that was sent of each interrupted event
}

// A cut closes a connection inside an event.
type cut struct {
	at    func(event string) int // how many bytes of the event are sent
	reset bool                   // close it with RST instead of FIN
}

func startRelay(tb testing.TB, addr, target string) *relay {
	tb.Helper()
	r := &relay{addr: addr, target: target, conns: make(map[net.Conn]bool)}
	if err := r.start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(r.stop)
	return r
}

// start accepts connections.
func (r *relay) start() error {
	listener, err := net.Listen("tcp", r.addr)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listener = listener
	r.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.serve(conn) })
		}
	})
	return nil
}

// refuse makes the kernel refuse new connections until start. Open connections stay open.
func (r *relay) refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		_ = r.listener.Close()
		r.listener = nil
	}
}

// stop refuses connections, closes the open ones, and returns when all goroutines have ended.
func (r *relay) stop() {
	r.refuse()
	r.resume()
	r.disconnect()
	r.wg.Wait()
}

// disconnect closes all open connections with a FIN.
func (r *relay) disconnect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		_ = conn.Close()
	}
}

// pause delays requests until resume.
func (r *relay) pause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = make(chan struct{})
}

func (r *relay) resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused != nil {
		close(r.paused)
		r.paused = nil
	}
}

// answer makes the relay respond with this status, as a proxy does when its back end is down. 0 relays again.
func (r *relay) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// cutNext closes the connection inside the next message.
func (r *relay) cutNext(c cut) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = &c
}

// count returns the value of a counter.
func (r *relay) count(counter func(*relay) int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return counter(r)
}

func opened(r *relay) int { return r.opened }
func busy(r *relay) int   { return r.busy }

func requests(r *relay) int { return r.requests }
func reopened(r *relay) int { return r.reopened }

// history describes the relayed requests for error messages.
func (r *relay) history() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("the relay received %d requests, %d streams, %d busy; Last-Event-ID %q; cut after %q", r.requests, r.opened, r.busy, r.ids, r.cuts)
}

func (r *relay) track(conn net.Conn, open bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if open {
		r.conns[conn] = true
	} else {
		delete(r.conns, conn)
	}
}

func (r *relay) serve(client net.Conn) {
	r.track(client, true)
	defer r.track(client, false)
	defer client.Close()
	in := bufio.NewReader(client)
	request, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	switch request.URL.Path {
	case "/events":
	case "/worker.js":
		_, _ = io.WriteString(client, worker)
		return
	case "/reopens":
		_, _ = io.WriteString(client, html(r.script))
		return
	default:
		_, _ = io.WriteString(client, html(plainEventSource))
		return
	}
	r.mu.Lock()
	paused, status := r.paused, r.status
	r.requests++
	id := request.Header.Get("Last-Event-ID")
	if resumed := request.URL.Query().Get("last-event-id"); id == "" && resumed != "" {
		id = resumed
		r.reopened++
	}
	r.ids = append(r.ids, id)
	r.mu.Unlock()
	if paused != nil {
		<-paused
	}
	if status != 0 {
		fmt.Fprintf(client, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status, http.StatusText(status))
		return
	}
	hub, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer hub.Close()
	request.Header.Del("Connection")
	request.Close = true // one request per connection, also after a short response
	head, err := httputil.DumpRequest(request, false)
	if err != nil {
		return
	}
	if _, err := hub.Write(head); err != nil {
		return
	}
	r.wg.Go(func() { // until the client disconnects, or the stream ends and serve closes the connection
		_, _ = io.Copy(io.Discard, in)
		_ = hub.Close()
	})
	r.relay(client, bufio.NewReader(hub))
}

// relay copies a response, and returns when it has ended or was interrupted.
func (r *relay) relay(client net.Conn, hub *bufio.Reader) {
	stream := false
	for line := ""; line != "\r\n"; { // the head
		var err error
		if line, err = hub.ReadString('\n'); err != nil {
			return
		}
		stream = stream || strings.EqualFold(strings.TrimSpace(line), "content-type: text/event-stream")
		if _, err := io.WriteString(client, line); err != nil {
			return
		}
	}
	if !stream {
		_, _ = io.Copy(client, hub)
		return
	}
	for {
		event, err := readEvent(hub)
		part, c := r.cutOff(event)
		if _, writeErr := client.Write(part); err != nil || writeErr != nil {
			return
		}
		switch {
		case c == nil:
			r.register(event)
			continue
		case c.reset:
			_ = client.(*net.TCPConn).SetLinger(0)
		}
		return
	}
}

// readEvent returns the next comment line, the next event with its blank line, or the remaining bytes
// at the end of the stream.
func readEvent(hub *bufio.Reader) ([]byte, error) {
	var event []byte
	for {
		line, err := hub.ReadBytes('\n')
		event = append(event, line...)
		isBlank, isFirst := len(bytes.TrimRight(line, "\r\n")) == 0, len(event) == len(line)
		if err != nil || isBlank || isFirst && line[0] == ':' {
			return event, err
		}
	}
}

// cutOff returns the part of the event to send, and the cut if that is not the whole event.
func (r *relay) cutOff(event []byte) ([]byte, *cut) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.cut
	if c == nil || !hasField(event, "data: ") || hasField(event, "event: ") {
		return event, nil
	}
	r.cut = nil
	n := c.at(string(event))
	if n >= len(event) {
		return event, nil
	}
	r.cuts = append(r.cuts, string(event[:n]))
	return event[:n], c
}

// register counts an event that was sent.
func (r *relay) register(event []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case hasField(event, "event: busy\n"):
		r.busy++
	case hasField(event, "event: bye\n"):
	case hasField(event, "retry: "):
		r.opened++
	}
}

func hasField(event []byte, field string) bool {
	return bytes.HasPrefix(event, []byte(field)) || bytes.Contains(event, []byte("\n"+field))
}

const plainEventSource = `
const received = [];
const source = new EventSource("/events" + location.search);
for (const type of ["message", "gap", "busy", "bye", "ping"])
	source.addEventListener(type, event => received.push({ type, data: event.data }));
`

// worker is a service worker that fetches each request unchanged.
var worker = response("text/javascript", `
addEventListener("install", () => skipWaiting());
addEventListener("activate", event => event.waitUntil(clients.claim()));
addEventListener("fetch", event => event.respondWith(fetch(event.request)));
`)

func html(script string) string {
	return response("text/html; charset=utf-8", "<!doctype html>\n<title>A page with a stream</title>\n<script>"+script+"</script>\n")
}

func response(contentType, body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", contentType, len(body), body)
}
