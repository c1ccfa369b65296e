package hub

import "testing"

// Whatever last id a browser sends, it gets a stream and receives all later messages.
func FuzzResume(f *testing.F) {
	h := NewPubSub(Config{
		Encode:         func(dst []byte, e Entry, _ bool) []byte { return append(dst, e.Payload...) },
		HistoryPerUser: 10, HistoryAge: 1 << 40, HistoryBytes: 1 << 20,
	})
	defer h.Close()
	f.Add("")
	f.Add(h.Boot() + "-0")
	f.Add(h.Boot() + "-18446744073709551615")
	f.Add("-1\x00\r\n")
	f.Fuzz(func(t *testing.T, id string) {
		c, err := h.Register(Options{User: "42", Resume: id, Consumer: idleConsumer{}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.End(ReasonClosed)
		h.Publish(User("42"), "", "after")
		last := ""
		for {
			frames, reason := c.Take(nil)
			if reason != 0 {
				t.Fatal(reason)
			}
			if len(frames) == 0 {
				break
			}
			last = string(frames[len(frames)-1].Wire)
			c.Settle(frames, len(frames))
		}
		if last != "after" {
			t.Errorf("after %q came %q last", id, last)
		}
	})
}

type idleConsumer struct{}

func (idleConsumer) Wake()      {}
func (idleConsumer) Interrupt() {}
