//go:build linux

package main

import (
	"bufio"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"usercast/bench/internal/process"
	"usercast/internal/redistest"
)

// The hubs that usercast is compared with deliver all messages.
func TestLowerBoundAndBaselineDeliver(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	address := func() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(redistest.FreePort(t))) }
	v := comparison{dir: t.TempDir(), programs: make(map[string]string), listen: address(), admin: address()}
	if err := v.build(t.Context(), "not built", ""); err != nil {
		t.Fatal(err)
	}
	v.redis = redistest.Start(t).Addr()
	lowerbound := hubs[slices.IndexFunc(hubs, func(h hub) bool { return h.name == "lowerbound" })]
	for i, h := range append(hubs, lowerbound) {
		if h.name == ours {
			continue
		}
		v.writers = i / len(hubs) * 2 // the lowerbound again, with separate writers
		p, err := v.startHub(t.Context(), h, "1s")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		stream, err := (&http.Client{Timeout: 20 * time.Second}).Get("http://" + v.listen + "/events?user=42")
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Body.Close()
		lines := bufio.NewScanner(stream.Body)
		lines.Scan() // the stream is open
		for _, command := range []string{"PUBLISH user-42:topic one", "PUBLISH user-43 other", `PUBLISH user-42 "two\nlines"`, "PUBLISH user-*:topic all"} {
			if subscribers := process.Ask(v.redis, command); subscribers != ":1" {
				t.Fatalf("%s: Redis returned %q", command, subscribers)
			}
		}
		var got []string
		pinged := false
		for !(pinged && len(got) >= 4) && lines.Scan() {
			if line := lines.Text(); strings.HasPrefix(line, ":") {
				pinged = true
			} else if line != "" {
				got = append(got, line)
			}
		}
		if want := []string{"data: one", "data: two", "data: lines", "data: all"}; !slices.Equal(got, want) || !pinged {
			t.Errorf("%s %q: got %q, pinged %v", h.name, p.Cmd.Args, got, pinged)
		}
		p.Stop()
	}
}
