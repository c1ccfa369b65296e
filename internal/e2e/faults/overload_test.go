package faults

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"usercast/internal/app"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// The app publishes as fast as Redis accepts messages, to stalled readers. The memory of the
// hub must stay below the bound in docs/guarantees.md.
func TestMemoryIsBoundedWithStalledReaders(t *testing.T) {
	const (
		queues, history = 16 << 20, 8 << 20
		streams         = 200
		payload         = 8000
	)
	server := redistest.Start(t)
	_, public, private := hubtest.Serve(t, server, nil,
		"--queue-total-bytes", fmt.Sprint(queues), "--history-bytes", fmt.Sprint(history), "--send-buffer", "4096", "--log-level", "info")
	conns := make([]net.Conn, streams)
	open := func(i int) {
		if conns[i] != nil {
			conns[i].Close()
		}
		conn, err := hubtest.DialSmall(public, 2048) // keeps the kernel's buffer small
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns[i] = conn
		fmt.Fprintf(conns[i], "GET /events?user=%d HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", i, public)
	}
	for i := range conns {
		open(i)
	}
	publisher := hubtest.NewPublisher(t, server.Addr())
	go io.Copy(io.Discard, publisher.Conn) // replies to PUBLISH
	text := strings.Repeat("x", payload)

	var most, slow float64
	w := bufio.NewWriterSize(publisher.Conn, 64<<10)
	rounds := 0
	for ; slow < streams; rounds++ {
		publisher.Conn.SetDeadline(time.Now().Add(hubtest.Patience))
		for range 3 {
			for user := range streams {
				io.WriteString(w, hubtest.RedisCommand("PUBLISH", fmt.Sprint("user-", user), text))
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		m := hubtest.Scrape(t, private)
		most = max(most, m.Sum("go_memstats_heap_inuse_bytes")+m.Sum("go_memstats_stack_inuse_bytes"))
		slow = m.ByReason("usercast_disconnects_total", "slow")
		if m.Sum("usercast_clients") < streams/2 { // the pages reconnect, and stall again
			for i := range conns {
				open(i)
			}
		}
	}
	if bound := 3.0*(queues+history) + streams*64<<10 + 64<<20 - app.ProgramSize; most > bound {
		t.Errorf("the hub used %.0f MiB, its bound is %.0f MiB", most/(1<<20), bound/(1<<20))
	}
	t.Logf("maximum %.1f MiB in %d rounds", most/(1<<20), rounds)
}
