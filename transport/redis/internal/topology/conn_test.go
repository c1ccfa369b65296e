package topology

import (
	"context"
	"net"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/redistest"
	"usercast/transport/redis/internal/resp"
)

// go-redis panics at some replies. In this test, the check is bypassed.
func TestPanicOfGoRedisIsAnError(t *testing.T) {
	t.Parallel()
	addr := redistest.StartFake(t, func(command ...string) string {
		if command[0] == "subscribe" {
			return "*0\r\n"
		}
		return "-ERR unknown command"
	}, false)
	s := parse(t, "redis://"+addr, Options{})
	c := s.NewConn(t.Context(), Target{}, func(context.Context, *goredis.Conn) error { return nil })
	defer c.Close()
	if err := c.Subscribe("x"); err != nil {
		t.Fatal(err)
	}
	c.replies = new(resp.CheckedConn)
	if _, err := c.Receive(); s.Fault(err, true).Reason != "reply" {
		t.Errorf("Receive: %v", err)
	}

	client := s.NewClient(Target{}, func(c net.Conn) net.Conn { return c })
	defer client.Close()
	client.AddHook(panicking{})
	if err := client.Ping(t.Context()).Err(); err == nil || s.Fault(err, true).Reason != "reply" {
		t.Errorf("a command: %v", err)
	}
	if _, err := client.Pipelined(t.Context(), func(p goredis.Pipeliner) error { p.Ping(t.Context()); return nil }); err == nil {
		t.Error("a pipeline: no error")
	}
}

type panicking struct{ catchPanics }

func (panicking) ProcessHook(goredis.ProcessHook) goredis.ProcessHook {
	return func(context.Context, goredis.Cmder) error { panic("odd") }
}

func (panicking) ProcessPipelineHook(goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(context.Context, []goredis.Cmder) error { panic("odd") }
}
