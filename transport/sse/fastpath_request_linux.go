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

// A fastRequest is a connection that a fastListener owns: from accepting it until the response is
// complete, a stream takes the connection over, or the peer disconnects.
type fastRequest struct {
	// Immutable.
	listener *fastListener
	conn     *pollConn
	remote   string    // address of the peer
	since    time.Time // when the connection was accepted

	serving atomic.Bool        // the request was received
	cancel  context.CancelFunc // cancels the context of the request; set before serving
	taken   atomic.Bool        // the connection has another owner or is closed
}

// begin marks the request as received and returns its context.
func (r *fastRequest) begin(ctx context.Context) context.Context {
	ctx, r.cancel = context.WithCancel(context.WithValue(ctx, connKey{}, r))
	r.serving.Store(true)
	return ctx
}

// take makes the first caller the owner of the connection and returns true for it. The request must
// have begun.
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
		r.listener.closedByPeer(r)
	} else {
		r.abandon()
	}
}

// abandon closes the connection if its peer has disconnected during the request, unless a stream or the
// response already owns it, and cancels the request's context. It frees the file descriptor and the slot
// even if the handler takes long to return.
func (r *fastRequest) abandon() {
	if r.take() {
		r.cancel()
		r.conn.close()
	}
}

// A parser holds the buffers for parsing a request.
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
		if r.take() { // otherwise a stream owns the connection, or the peer has disconnected
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
		// As in net/http, a panic in one request must not end all streams.
		v := recover()
		if v != nil && v != http.ErrAbortHandler {
			r.listener.log.Error("handler panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
		response.aborted = v != nil
	}()
	r.listener.handler.ServeHTTP(response, req.WithContext(ctx))
}

// takeFast returns the connection of a request that a fastListener has received, as the transport of a
// client. If the peer has disconnected, it returns the reason. For other requests it returns nil
// and 0.
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
