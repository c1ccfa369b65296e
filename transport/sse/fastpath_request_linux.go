package sse

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"usercast/hub"
)

// A fastRequest is a connection that a fastListener owns, from accepting it until the
// request is answered, a stream takes the connection, or the peer disconnects.
type fastRequest struct {
	// Immutable.
	listener *fastListener
	conn     *pollConn
	remote   string // address of the peer
	since    time.Time

	serving atomic.Bool        // the request was received
	cancel  context.CancelFunc // of its context; set before serving is
	taken   atomic.Bool        // its connection has another owner, or is closed
}

// begin returns the context of the request, which was received.
func (r *fastRequest) begin(ctx context.Context) context.Context {
	ctx, r.cancel = context.WithCancel(context.WithValue(ctx, connKey{}, r))
	r.serving.Store(true)
	return ctx
}

// take makes the caller the owner of the connection, if it is the first one. Only for a
// request that is being served.
func (r *fastRequest) take() bool { return r.taken.CompareAndSwap(false, true) }

// Received implements netpoll.Handler.
func (r *fastRequest) Received(data []byte, last bool) {
	if !r.serving.Load() {
		r.listener.received(r, data, last)
	} else if r.conn.BytesReceived() > maxPeerBytes {
		r.abandon()
	}
}

// Closed implements netpoll.Handler.
func (r *fastRequest) Closed(error) {
	if !r.serving.Load() {
		r.listener.leftWithoutRequest(r)
	} else {
		r.abandon()
	}
}

// abandon closes a connection whose peer has disconnected while its request is being served, unless
// a stream or the response has it by now. The handler sees that in the request's context;
// however long it takes to return, it holds neither the descriptor nor the slot.
func (r *fastRequest) abandon() {
	if r.take() {
		r.cancel()
		r.conn.close()
	}
}

// A parser is what is needed to parse a request.
type parser struct {
	head   []byte
	bytes  bytes.Reader
	reader *bufio.Reader
}

var parsers = sync.Pool{New: func() any { return &parser{reader: bufio.NewReader(nil)} }}

func newParser(head []byte) *parser {
	p := parsers.Get().(*parser)
	p.head = append(p.head[:0], head...)
	p.bytes.Reset(p.head)
	p.reader.Reset(&p.bytes)
	return p
}

// serve answers the request with the server's handler.
func (r *fastRequest) serve(ctx context.Context, p *parser) {
	defer r.listener.served()
	response := &fastResponse{header: make(http.Header)}
	defer func() {
		if r.take() { // no stream has taken the connection, and the peer has not left
			defer r.conn.close()
			if !response.aborted {
				r.conn.write(&net.Buffers{response.head(), response.body.Bytes()})
			}
		}
	}()
	defer r.cancel()
	req, err := http.ReadRequest(p.reader)
	parsers.Put(p)
	if err != nil {
		response.WriteHeader(http.StatusBadRequest)
		return
	}
	req.RemoteAddr = r.remote
	defer func() {
		// As net/http does: a panic in one request must not end all streams.
		v := recover()
		if v != nil && v != http.ErrAbortHandler {
			r.listener.log.Error("handler panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
		response.aborted = v != nil
	}()
	r.listener.handler.ServeHTTP(response, req.WithContext(ctx))
}

// takeFast returns the connection of a request that a fastListener has received, as the
// transport of a client, or why the peer is gone; nil and 0 for other requests.
func takeFast(req *http.Request, client *hub.Client) (transport, hub.Reason) {
	r, ok := req.Context().Value(connKey{}).(*fastRequest)
	if !ok {
		return nil, 0
	}
	c := r.conn
	if !r.take() {
		return nil, c.reason(net.ErrClosed)
	}
	c.client = client
	if err := c.SetHandler(c); err != nil {
		c.close()
		return nil, c.reason(err)
	}
	return c, 0
}
