package fleet

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"usercast/hub"
)

// Op is the value of "op" that distinguishes a marker from control commands.
const Op = "marker"

// wireVersion is the version of the JSON of a marker. It grows only if hubs of the version before would misunderstand
// a marker. New fields do not change it: hubs ignore fields that they do not know.
const wireVersion = 1

// A Marker is what a hub publishes on the control channel.
type Marker struct {
	// Name is random and new for each attempt to publish a marker. It is zero if the marker has a version that this
	// hub does not know; then only From and Hub are set.
	Name hub.MarkerName

	// A marker counts for the subscriptions to the same process of Redis with the same patterns.
	RunID    string   // of the process that the publisher is subscribed to; "": unknown, the marker counts for none
	Patterns []string // confirmed, sorted

	From   string  // the publisher in one generation: <random>.<number>
	Points []Point // the markers that it has received lately, in that order
	// Missed is not zero if the publisher has missed messages since it received this marker.
	Missed hub.MarkerName

	Hub Hub // for people
}

// A Point is what a hub had counted before a marker, since its generation began.
type Point struct {
	Name  hub.MarkerName
	Count uint64
	Sum   uint32
}

// Limits of a marker's strings in bytes, because a hub remembers them for each publisher.
const (
	maxFrom    = 64
	maxName    = 255
	maxVersion = 64
)

// wireMarker is the JSON of a Marker.
//
//	{"op":"marker","v":1,"id":"kq3…","from":"b7….3","hub":{"name":"a","version":"1.0","streams":12,"users":9},
//	 "run":"…","patterns":["user-*"],"points":"<name>:<count>:<sum> …","missed":"…"}
//
// Most of it is points: 3.5 for each hub of the fleet. One takes about 26 bytes: each count is relative to the point
// before, and a sum is 4 bytes in base64.
type wireMarker struct {
	Op      string `json:"op"`
	Version int    `json:"v"`
	From    string `json:"from"`
	Hub     Hub    `json:"hub"`

	Name     string   `json:"id"`
	RunID    string   `json:"run"`
	Patterns []string `json:"patterns"`
	Points   string   `json:"points"`
	Missed   string   `json:"missed,omitempty"`
}

// AppendMarker appends the JSON of a marker to dst.
func AppendMarker(dst []byte, mk Marker) []byte {
	w := wireMarker{
		Op: Op, Version: wireVersion, From: mk.From, Hub: mk.Hub,
		Name: mk.Name.String(), RunID: mk.RunID, Patterns: mk.Patterns, Points: formatPoints(mk.Points),
	}
	if mk.Missed != (hub.MarkerName{}) {
		w.Missed = mk.Missed.String()
	}
	b, err := json.Marshal(w)
	if err != nil {
		panic(err) // cannot happen: strings and numbers
	}
	return append(dst, b...)
}

// ParseMarker parses the output of AppendMarker, of this version or another one. The error says what is invalid, and
// contains nothing of the payload.
func ParseMarker(payload string) (Marker, error) {
	var w wireMarker
	err := json.Unmarshal([]byte(payload), &w)
	if wrongType := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrongType) && w.Version != wireVersion {
		err = nil // another version may have fields of another type; json has skipped these only
	}
	mk := Marker{From: w.From, Hub: w.Hub}
	switch {
	case err != nil:
		return Marker{}, errors.New("marker has fields of the wrong type")
	case mk.From == "" || len(mk.From) > maxFrom:
		return Marker{}, fmt.Errorf("marker: from must have 1 to %d bytes", maxFrom)
	case len(mk.Hub.Name) > maxName || len(mk.Hub.Version) > maxVersion:
		return Marker{}, fmt.Errorf("marker: the hub's name must have at most %d bytes and its version %d", maxName, maxVersion)
	case mk.Hub.Streams < 0 || mk.Hub.Users < 0:
		return Marker{}, errors.New("marker: streams and users must not be negative")
	case w.Version != wireVersion:
		return mk, nil
	}
	var ok bool
	if mk.Name, ok = hub.ParseMarkerName(w.Name); !ok {
		return Marker{}, errors.New("marker: id is not the name of a marker")
	}
	if w.Missed != "" {
		if mk.Missed, ok = hub.ParseMarkerName(w.Missed); !ok {
			return Marker{}, errors.New("marker: missed is not the name of a marker")
		}
	}
	if mk.Points, err = parsePoints(w.Points); err != nil {
		return Marker{}, err
	}
	mk.RunID, mk.Patterns = w.RunID, w.Patterns
	return mk, nil
}

func formatPoints(points []Point) string {
	b := make([]byte, 0, 28*len(points))
	last := uint64(0)
	for i, p := range points {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(append(b, p.Name[:]...), ':')
		b = append(strconv.AppendUint(b, p.Count-last, 10), ':')
		b = base64.RawURLEncoding.AppendEncode(b, binary.BigEndian.AppendUint32(nil, p.Sum))
		last = p.Count
	}
	return string(b)
}

func parsePoints(text string) (points []Point, err error) {
	if text == "" {
		return nil, nil
	}
	points = make([]Point, 0, strings.Count(text, " ")+1)
	last := uint64(0)
	for one := range strings.SplitSeq(text, " ") {
		name, rest, _ := strings.Cut(one, ":")
		count, sum, _ := strings.Cut(rest, ":")
		var p Point
		var ok bool
		if p.Name, ok = hub.ParseMarkerName(name); !ok {
			return nil, errors.New("marker: a point must begin with the name of a marker")
		}
		n, err := strconv.ParseUint(count, 10, 64)
		if err != nil || n > math.MaxUint64-last {
			return nil, errors.New("marker: the count of a point must be a number below 2^64")
		}
		b, err := base64.RawURLEncoding.DecodeString(sum)
		if err != nil || len(b) != 4 {
			return nil, errors.New("marker: the checksum of a point must be 4 bytes in base64")
		}
		p.Count, p.Sum = last+n, binary.BigEndian.Uint32(b)
		last = p.Count
		points = append(points, p)
	}
	return points, nil
}
