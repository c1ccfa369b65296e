package redis

import (
	"fmt"
	"strings"
	"testing"

	"usercast/internal/redistest"
)

func TestPipelinePublishesInOrderAndReceivesEachReply(t *testing.T) {
	t.Parallel()
	const n = 5000
	server := redistest.Start(t, "--requirepass", "secret")
	h := start(t, parse(t, server.URL(), ServerOptions{Password: "secret"}), nil)
	eventually(t, "it has subscribed", func() bool { return h.Stats().Connected })
	p, err := NewPipeline(t.Context(), parse(t, server.URL(), ServerOptions{Password: "secret"}), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	go func() {
		payload := []byte("?????")
		for i := range n {
			copy(payload, fmt.Sprintf("%05d", i)) // the caller may reuse it immediately
			p.Publish("user-42:bench", payload)
		}
		p.Flush()
	}()
	for i := range n {
		if receivers, err := p.Receive(); receivers != 1 || err != nil {
			t.Fatalf("message %d: %d receivers, %v", i, receivers, err)
		}
	}
	var got []string
	eventually(t, "all have arrived", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		got = got[:0]
		for _, e := range h.events {
			if payload, ok := strings.CutPrefix(e, "42/bench/"); ok {
				got = append(got, payload)
			}
		}
		return len(got) >= n
	})
	for i, payload := range got {
		if payload != fmt.Sprintf("%05d", i) {
			t.Fatalf("message %d is %q", i, payload)
		}
	}
}

func TestPipelineAppends(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p, err := NewPipeline(t.Context(), parse(t, server.URL(), ServerOptions{}), "log", "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 3 {
		p.Append("log", "user-42:bench", []byte("x\r\ny"))
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if receivers, err := p.Receive(); receivers != -1 || err != nil {
			t.Errorf("%d, %v", receivers, err)
		}
	}
	if got := fmt.Sprint(server.Do("xrange", "log", "-", "+")); strings.Count(got, "[ch user-42:bench data x\r\ny]") != 3 {
		t.Errorf("the log contains %q", got)
	}
}

func TestPipelineExplainsErrors(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("set", "text", "x")
	p, err := NewPipeline(t.Context(), parse(t, server.URL(), ServerOptions{}), "text", "")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Append("text", "user-42", []byte("x"))
	p.Publish("user-42", []byte("x"))
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Receive(); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("appending to a string: %v", err)
	}
	if receivers, err := p.Receive(); receivers != 0 || err != nil {
		t.Errorf("the next one: %d, %v", receivers, err)
	}
	server.Kill()
	if _, err := p.Receive(); err == nil || !strings.Contains(err.Error(), "closed the connection") {
		t.Errorf("killed: %v", err)
	}
	if _, err := NewPipeline(t.Context(), parse(t, server.URL(), ServerOptions{}), "", ""); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("down: %v", err)
	}
}

func TestPipelineFindsTheOwnerInACluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	for _, key := range []string{"a", "b", "c", "d"} {
		p, err := NewPipeline(t.Context(), parse(t, clusterURL("", nodes...), ServerOptions{}), key, "")
		if err != nil {
			t.Fatal(err)
		}
		p.Append(key, "user-42", []byte("x"))
		p.Flush()
		if receivers, err := p.Receive(); receivers != -1 || err != nil {
			t.Errorf("%s: %d, %v", key, receivers, err)
		}
		p.Close()
	}
}
