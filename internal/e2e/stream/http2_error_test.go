package stream

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"usercast/internal/certtest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// A peer that violates HTTP/2 receives a GOAWAY with the error code, also after valid requests, so that its
// developers can find the error.
func TestHTTP2ErrorsSendGOAWAYWithErrorCode(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	pair := certtest.New(t, "hub")
	clear := hubtest.Start(t, server)
	secure, _ := hubtest.StartTLS(t, server, pair)
	for name, dial := range map[string]func() (net.Conn, error){
		"cleartext": func() (net.Conn, error) { return net.Dial("tcp", clear.PublicAddr()) },
		"TLS": func() (net.Conn, error) {
			return tls.Dial("tcp", secure.PublicAddr(), &tls.Config{RootCAs: certtest.Pool(pair), NextProtos: []string{"h2"}})
		},
	} {
		for before, path := range map[string]string{"at first": "", "after a request": "/livez", "with a stream open": "/events?user=42"} {
			t.Run(name+", "+before, func(t *testing.T) {
				conn, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(hubtest.Patience))
				io.WriteString(conn, http2.ClientPreface)
				framer := http2.NewFramer(conn, conn)
				framer.WriteSettings()
				if path != "" {
					var head bytes.Buffer
					encoder := hpack.NewEncoder(&head)
					for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "h"}, {":path", path}, {"accept", "text/event-stream"}} {
						encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
					}
					framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
				}
				misbehave := func() { framer.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8)) } // a PING must not have a stream ID
				if path == "" {
					misbehave()
				}
				for {
					f, err := framer.ReadFrame()
					if err != nil {
						t.Fatalf("%v, and no GOAWAY with an error code", err)
					}
					switch f := f.(type) {
					case *http2.DataFrame:
						if f.StreamEnded() || path != "/livez" { // the first bytes of the stream
							misbehave()
						}
					case *http2.GoAwayFrame:
						if f.ErrCode != http2.ErrCodeProtocol {
							t.Fatalf("GOAWAY with %v, want %v", f.ErrCode, http2.ErrCodeProtocol)
						}
						return
					}
				}
			})
		}
	}
}
