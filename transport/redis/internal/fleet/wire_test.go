package fleet

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"usercast/hub"
)

var names = func() (names [5]hub.MarkerName) {
	for i := range names {
		names[i], _ = hub.ParseMarkerName("marker" + strings.Repeat("abcdefg"[i:i+1], 7))
	}
	return names
}()

var example = Marker{
	Name: names[0], RunID: "0123456789abcdef0123456789abcdef01234567", Patterns: []string{"group-*", "user-*"},
	From: "abcdefghijklm.3", Missed: names[1],
	Points: []Point{{names[1], 100, 0}, {names[2], 100, 1}, {names[3], 1234567, math.MaxUint32}, {names[4], math.MaxUint64, 2}},
	Hub:    Hub{Name: "host-1 \"<é>\"", Version: "1.0.0-rc.1", Streams: 12, Users: 9},
}

// The JSON of version 1 never changes, because hubs of different versions run side by side.
func TestMarkerIsTheSameInAllVersions(t *testing.T) {
	t.Parallel()
	const want = `{"op":"marker","v":1,"from":"abcdefghijklm.3","hub":{"name":"host-1 \"\u003cé\u003e\"","version":"1.0.0-rc.1","streams":12,"users":9},` +
		`"id":"markeraaaaaaa","run":"0123456789abcdef0123456789abcdef01234567","patterns":["group-*","user-*"],` +
		`"points":"markerbbbbbbb:100:AAAAAA markerccccccc:0:AAAAAQ markerddddddd:1234467:_____w markereeeeeee:18446744073708317048:AAAAAg","missed":"markerbbbbbbb"}`
	if got := string(AppendMarker([]byte("x"), example)); got != "x"+want {
		t.Errorf("got  %s\nwant x%s", got, want)
	}
	if got, err := ParseMarker(want); err != nil || !reflect.DeepEqual(got, example) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A hub ignores what it does not know.
func TestUnknownFieldsAreIgnored(t *testing.T) {
	t.Parallel()
	text := string(AppendMarker(nil, example))
	text = strings.Replace(text, `"hub":{`, `"later":{"a":[1]},"hub":{"zone":"b",`, 1)
	if got, err := ParseMarker(text); err != nil || !reflect.DeepEqual(got, example) {
		t.Errorf("%+v, %v", got, err)
	}
}

// Of a version that a hub does not know, it knows only the publisher.
func TestOtherVersionCountsForNothing(t *testing.T) {
	t.Parallel()
	want := Marker{From: "abc.1", Hub: Hub{Name: "new", Version: "2.0", Streams: 1}}
	for _, text := range []string{
		`{"op":"marker","v":2,"from":"abc.1","hub":{"name":"new","version":"2.0","streams":1}}`,
		`{"op":"marker","v":2,"from":"abc.1","hub":{"name":"new","version":"2.0","streams":1},"id":7,"run":{},"patterns":"x","points":[],"missed":1}`,
		`{"id":7,"op":"marker","from":"abc.1","hub":{"name":"new","version":"2.0","streams":1},"v":"2"}`,
		strings.Replace(string(AppendMarker(nil, Marker{Name: names[0], From: "abc.1", Hub: want.Hub, RunID: "x"})), `"v":1`, `"v":3`, 1),
	} {
		if got, err := ParseMarker(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

func TestInvalidMarkers(t *testing.T) {
	t.Parallel()
	valid := string(AppendMarker(nil, example))
	for _, change := range [][2]string{
		{valid, ""}, {valid, "null"}, {valid, "[]"}, {"}", ""},
		{`"id":"markeraaaaaaa"`, `"id":"markeraaaaaa"`}, {`"id":"markeraaaaaaa"`, `"id":"2arkeraaaaaaa"`}, {`"id":"markeraaaaaaa"`, `"id":"markeraaaaaa1"`},
		{`"id":"markeraaaaaaa"`, `"id":7`}, {`"id":"markeraaaaaaa",`, ``},
		{`"missed":"markerbbbbbbb"`, `"missed":"x"`}, {`"from":"abcdefghijklm.3"`, `"from":""`},
		{`"from":"abcdefghijklm.3"`, `"from":"` + strings.Repeat("x", maxFrom+1) + `"`},
		{`"version":"1.0.0-rc.1"`, `"version":"` + strings.Repeat("x", maxVersion+1) + `"`},
		{`"name":"host-1`, `"name":"` + strings.Repeat("x", maxName)},
		{`"streams":12`, `"streams":-1`}, {`"users":9`, `"users":-9`}, {`"users":9`, `"users":1e30`}, {`"users":9`, `"users":"9"`},
		{":100:", ":-100:"}, {":100:", "::"}, {":100:", ":1e2:"}, {":100:", ":18446744073709551616:"},
		{":1234467:", ":1234468:"}, // the last count is then over 2^64
		{":AAAAAQ", ":AAAAA"}, {":AAAAAQ", ":AAAAAQQ"}, {":AAAAAQ", ":AAAA+Q"}, {":AAAAAQ", ":AAAAAQ=="}, {":AAAAAQ", ""},
		{" markerccccccc", "  markerccccccc"}, {" markerccccccc", " Markerccccccc"}, {":AAAAAg", ":AAAAAg "},
	} {
		text := strings.Replace(valid, change[0], change[1], 1)
		if text == valid {
			t.Errorf("%s is not in the example", change[0])
		}
		if got, err := ParseMarker(text); err == nil {
			t.Errorf("%s → %s: parsed as %+v", change[0], change[1], got)
		} else if strings.Contains(err.Error(), "markera") || !reflect.DeepEqual(got, Marker{}) {
			t.Errorf("%s → %s: %+v, %v", change[0], change[1], got, err)
		}
	}
}

// A point takes about 25 bytes, so that 100 hubs list 350 points in 10 kB.
func TestPointsAreShort(t *testing.T) {
	t.Parallel()
	mk := example
	mk.Points = nil
	empty := len(AppendMarker(nil, mk))
	for i := range 350 { // of 100 hubs within 35 s, with 2,500 messages per second
		mk.Points = append(mk.Points, Point{hub.NewMarkerName(), uint64(250 * i), 1 << 31})
	}
	if per := float64(len(AppendMarker(nil, mk))-empty) / 350; per > 26 {
		t.Errorf("%.1f bytes per point", per)
	}
}

// An accepted marker is the same after it was formatted and parsed again.
func FuzzParseMarker(f *testing.F) {
	f.Add(string(AppendMarker(nil, example)))
	f.Add(string(AppendMarker(nil, Marker{Name: names[1], From: "a.1"})))
	f.Add(`{"op":"marker","v":1,"id":"markeraaaaaaa","from":"a.1","POINTS":"markerbbbbbbb:1:AAAAAA","points":null}`)
	f.Add(`{"op":"marker","v":2,"id":7,"from":"a.1","hub":{"name":"n"}}`)
	f.Add(`{"v":1,"id":"markeraaaaaaa","from":"a.1","points":"markerbbbbbbb:18446744073709551615:AAAAAA markerccccccc:1:AAAAAA"}`)
	f.Add("{\"v\":1,\"id\":\"markeraaaaaaa\",\"from\":\"\xff\"}")
	f.Fuzz(func(t *testing.T, payload string) {
		mk, err := ParseMarker(payload)
		if err != nil {
			if !reflect.DeepEqual(mk, Marker{}) {
				t.Errorf("%q: %+v in addition to %v", payload, mk, err)
			}
			return
		}
		if mk.Name == (hub.MarkerName{}) { // another version
			mk.Name = names[0]
		}
		for i, p := range mk.Points {
			if i > 0 && p.Count < mk.Points[i-1].Count {
				t.Errorf("%q: the counts decrease: %+v", payload, mk.Points)
			}
		}
		if again, err := ParseMarker(string(AppendMarker(nil, mk))); err != nil || !reflect.DeepEqual(again, mk) {
			t.Errorf("%q: %+v, then %+v, %v", payload, mk, again, err)
		}
	})
}
