package redis

import (
	"reflect"
	"strings"
	"testing"

	"usercast/hub"
	"usercast/transport/redis/internal/fleet"
)

func TestParseControl(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]Control{
		`{"op":"disconnect","user":"42"}`:                {OpDisconnect, "42"},
		` {"user":"a b", "op":"disconnect", "later":1} `: {OpDisconnect, "a b"},
		`{"op":"disconnect","user":"*"}`:                 {OpDisconnect, "*"},
	} {
		if got, err := ParseControl(payload); err != nil || got != want {
			t.Errorf("%s: %+v, %v", payload, got, err)
		}
		if again, err := ParseControl(want.String()); err != nil || again != want {
			t.Errorf("%s is not read back: %+v, %v", want, again, err)
		}
		if got, marker, err := parseControlMessage(payload); err != nil || got != want || marker != nil {
			t.Errorf("%s on the control channel: %+v, %v, %v", payload, got, marker, err)
		}
	}
	for _, payload := range []string{
		"", "{}", "null", "[]", "42", `"disconnect"`, `{"op":"disconnect"}`, `{"op":"disconnect","user":""}`, `{"op":"disconnect","user":42}`,
		`{"op":"restart","user":"42"}`, `{"user":"42"}`, `{"op":"disconnect","user":"42"`, `{"op":"disconnect","user":"42"} x`,
		`{"op":"disconnect","user":"` + strings.Repeat("4", maxControl) + `"}`, "\xff",
	} {
		if got, err := ParseControl(payload); err == nil {
			t.Errorf("%.60q is parsed as %+v", payload, got)
		}
		if got, marker, err := parseControlMessage(payload); err == nil {
			t.Errorf("%.60q on the control channel is parsed as %+v, %v", payload, got, marker)
		}
	}
}

// A marker may be longer than a control command, because it grows with the fleet. Only the control channel carries
// markers, so the stream feed rejects them.
func TestParseMarkerOnTheControlChannel(t *testing.T) {
	t.Parallel()
	want := fleet.Marker{
		Name: hub.NewMarkerName(), RunID: "run", Patterns: []string{"user-*"}, From: "abc.1",
		Hub: fleet.Hub{Name: "a", Version: "1.0", Streams: 3, Users: 2},
	}
	for range 1000 {
		want.Points = append(want.Points, fleet.Point{Name: hub.NewMarkerName(), Count: 1 << 40, Sum: 1 << 31})
	}
	payload := string(fleet.AppendMarker(nil, want))
	if len(payload) < maxControl || len(payload) > maxMarker {
		t.Fatalf("the marker has %d bytes", len(payload))
	}
	command, marker, err := parseControlMessage(payload)
	if err != nil || command != (Control{}) || marker == nil || !reflect.DeepEqual(*marker, want) {
		t.Errorf("%+v, %v, %v", command, marker, err)
	}
	short := `{"op":"marker","v":1,"id":"` + want.Name.String() + `","from":"abc.1"}`
	if c, err := ParseControl(short); err == nil {
		t.Errorf("the stream feed accepts a marker as %+v", c)
	}
	for name, payload := range map[string]string{
		"over the limit": payload + strings.Repeat(" ", maxMarker),
		"id missing":     `{"op":"marker","v":1,"from":"abc.1","hub":{}}`,
	} {
		if command, marker, err := parseControlMessage(payload); err == nil {
			t.Errorf("%s: parsed as %+v, %+v", name, command, marker)
		}
	}
}

// An accepted control command can be executed, and is the same after it was formatted and parsed again.
func FuzzParseControl(f *testing.F) {
	f.Add(`{"op":"disconnect","user":"42"}`)
	f.Add(`{"op":"disconnect","user":"42","user":"","OP":"x"} `)
	f.Add(`{"op":"disconnect","user":42}`)
	f.Add("{\"op\":\"disconnect\",\"user\":\"\xff\"}")
	f.Fuzz(func(t *testing.T, payload string) {
		c, err := ParseControl(payload)
		if err != nil {
			if c != (Control{}) {
				t.Errorf("%q: %+v in addition to %v", payload, c, err)
			}
			return
		}
		if c.Op != OpDisconnect || c.User == "" {
			t.Errorf("%q: %+v", payload, c)
		}
		if again, err := ParseControl(c.String()); len(c.String()) <= maxControl && (err != nil || again != c) {
			t.Errorf("%q: %+v, then %+v, %v", payload, c, again, err)
		}
	})
}
