//go:build measure && unix

package attack

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"usercast/internal/hubtest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The effect of HTTP/2 floods on another stream depends mostly on the number of cores, so it is only
// measured. Without -race, the limit tooLate also holds.
func TestMeasureHTTP2Attacks(t *testing.T) {
	for name, secure := range map[string]bool{"in clear": false, "over TLS": true} {
		t.Run(name, func(t *testing.T) {
			s := startTarget(t, secure, "--write-timeout", "2s")
			for _, attack := range []struct {
				name string
				how  func(*testing.T)
			}{
				// The baseline for comparison: no requests to the hub.
				{"no attack, two busy processes", func(t *testing.T) {
					for range 2 {
						busy := exec.Command("sh", "-c", "while :; do :; done")
						if err := busy.Start(); err != nil {
							t.Fatal(err)
						}
						defer busy.Wait()
						defer busy.Process.Kill()
					}
					time.Sleep(3 * time.Second)
				}},
				{"rapid reset", s.rapidReset},
				{"headers without END_HEADERS", s.flood(func(a *attacker) error {
					id := a.next
					a.next += 2
					err := a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.request("42")})
					a.block.Reset()
					a.hpack.WriteField(hpack.HeaderField{Name: "x-a", Value: strings.Repeat("b", 4000), Sensitive: true})
					for range 1000 {
						if err == nil {
							err = a.framer.WriteContinuation(id, false, a.block.Bytes())
						}
					}
					return err
				})},
				{"empty continuations", s.flood(func(a *attacker) error {
					id := a.next
					a.next += 2
					err := a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.request("42")})
					for range 100_000 {
						if err == nil {
							err = a.framer.WriteContinuation(id, false, nil)
						}
					}
					return err
				})},
				{"settings", s.flood(func(a *attacker) error {
					return a.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16})
				})},
				{"pings", s.flood(func(a *attacker) error { return a.framer.WritePing(false, [8]byte{}) })},
				{"resets of streams that were never opened", s.flood(func(a *attacker) error {
					return a.framer.WriteRSTStream(a.next, http2.ErrCodeCancel)
				})},
				{"streams without a window", s.noWindow},
			} {
				t.Run(attack.name, func(t *testing.T) { s.attack(t, attack.how) })
			}
		})
	}
}

// rapidReset is CVE-2023-44487: the client resets each stream immediately. It then has no open
// streams, although the hub may still be processing many.
func (s *target) rapidReset(t *testing.T) {
	const conns, resets = 8, 20_000
	var (
		answered atomic.Int64
		start    = time.Now()
		reasons  sync.Map
	)
	hubtest.Each(t, conns, func(c int) error {
		batch := resets // as fast as possible
		if c%2 == 0 {
			batch = 100 // few enough that the hub does not close the connection
		}
		for left := resets / conns; left > 0; {
			a, err := s.attacker()
			if err != nil {
				return err
			}
			// One stream stays open, because the hub closes a connection without streams.
			_, err = a.ask(fmt.Sprintf("%d-stays", c))
			for err == nil && left > 0 {
				for n := min(batch, left); err == nil && n > 0; n-- {
					var id uint32
					if id, err = a.ask(fmt.Sprintf("%d-%d", c, left)); err == nil {
						err = a.framer.WriteRSTStream(id, http2.ErrCodeCancel)
					}
					left--
				}
				if err == nil {
					a.framer.WritePing(false, [8]byte{})
					err = a.w.Flush()
				}
				for ping := false; err == nil && !ping; {
					var f http2.Frame
					if f, err = a.framer.ReadFrame(); err == nil {
						switch f := f.(type) {
						case *http2.HeadersFrame:
							answered.Add(1)
						case *http2.PingFrame:
							ping = f.IsAck()
						case *http2.GoAwayFrame:
							reasons.Store(f.ErrCode, true)
							err = errors.New("GOAWAY")
						}
					}
				}
			}
			if err != nil && batch == 100 {
				t.Errorf("a client that resets %d streams at a time is disconnected: %v", batch, err)
			}
			a.Close()
		}
		return nil
	})
	t.Logf("%d resets in %v; the hub started %d responses", resets, time.Since(start).Round(time.Millisecond), answered.Load())
	reasons.Range(func(why, _ any) bool {
		t.Log("connections were closed with", why)
		return true
	})
}

// flood repeats frames on some connections for a few seconds, or until the hub closes the
// connections. It does not read the responses.
func (s *target) flood(frames func(*attacker) error) func(t *testing.T) {
	return func(t *testing.T) {
		var written, cut atomic.Int64
		atOnce(4, 3*time.Second, func(int, int) {
			a, err := s.attacker()
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			a.SetDeadline(time.Now().Add(3 * time.Second))
			for err == nil {
				err = frames(a)
				written.Add(1)
			}
			cut.Add(1)
		})
		t.Logf("%d repetitions; the hub closed %d connections", written.Load(), cut.Load())
	}
}

// noWindow opens streams with a flow-control window of zero, so the hub cannot send anything.
func (s *target) noWindow(t *testing.T) {
	const conns, streams = 4, 100
	ended := func() float64 {
		return hubtest.Scrape(t, s.admin).ByReason("usercast_disconnects_total", "slow")
	}
	before := ended()
	for c := range conns {
		a, err := s.attacker(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		go io.Copy(io.Discard, a)
		for i := range streams {
			if _, err := a.ask(fmt.Sprintf("%d-%d", c, i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	hubtest.Within(t, 2*time.Second+hubtest.Soon, "all streams are ended", func() bool { return ended() == before+conns*streams })
	t.Logf("ended after %v, the write timeout is 2s", time.Since(start).Round(10*time.Millisecond))
}
