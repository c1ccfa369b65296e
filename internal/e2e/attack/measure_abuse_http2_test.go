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

// What floods of frames do to a stream beside them: mostly a matter of how many cores there
// are, and so measured only. The bound of a message that is too late holds without -race.
func TestMeasureHTTP2Attacks(t *testing.T) {
	for name, secure := range map[string]bool{"in clear": false, "over TLS": true} {
		t.Run(name, func(t *testing.T) {
			s := startTarget(t, secure, "--write-timeout", "2s")
			for _, attack := range []struct {
				name string
				how  func(*testing.T)
			}{
				// What the others are to be compared with: nobody asks the hub for anything.
				{"none, but two busy processes beside it", func(t *testing.T) {
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
				{"headers without an end", s.flood(func(a *attacker) error {
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
				{"resets of streams that never were asked for", s.flood(func(a *attacker) error {
					return a.framer.WriteRSTStream(a.next, http2.ErrCodeCancel)
				})},
				{"streams without a window", s.noWindow},
			} {
				t.Run(attack.name, func(t *testing.T) { s.attack(t, attack.how) })
			}
		})
	}
}

// rapidReset is CVE-2023-44487: each stream is cancelled at once, so that the client has
// none open, and the hub may have many to work on.
func (s *target) rapidReset(t *testing.T) {
	const conns, resets = 8, 20_000
	var (
		answered atomic.Int64
		start    = time.Now()
		reasons  sync.Map
	)
	hubtest.Each(t, conns, func(c int) error {
		batch := resets // as fast as can be written
		if c%2 == 0 {
			batch = 100 // never so many that the hub has enough of it
		}
		for left := resets / conns; left > 0; {
			a, err := s.attacker()
			if err != nil {
				return err
			}
			// One that stays: the hub ends a connection that has no stream left.
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
							err = errors.New("go away")
						}
					}
				}
			}
			if err != nil && batch == 100 {
				t.Errorf("a client that resets %d streams at a time is cut off: %v", batch, err)
			}
			a.Close()
		}
		return nil
	})
	t.Logf("%d resets in %v; the hub began %d answers", resets, time.Since(start).Round(time.Millisecond), answered.Load())
	reasons.Range(func(why, _ any) bool {
		t.Log("connections were cut off with", why)
		return true
	})
}

// flood repeats frames on some connections for some seconds, or until the hub has had
// enough, and reads nothing of what it answers.
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
		t.Logf("%d times on %d connections", written.Load(), cut.Load())
	}
}

// noWindow opens streams that may not send a byte.
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
	hubtest.Within(t, 2*time.Second+hubtest.Soon, "all of them are ended", func() bool { return ended() == before+conns*streams })
	t.Logf("ended after %v, the write timeout is 2s", time.Since(start).Round(10*time.Millisecond))
}
