package load

import (
	"encoding/json"
	"math"
	"testing"
)

var testStart = payloadStart("0badcafe")

func TestPayloadIsJSONOfTheGivenSize(t *testing.T) {
	for _, s := range []stamp{
		{user: 0, seq: 1},
		{user: allUsers, seq: 7, index: 6, due: 12345},
		{user: math.MaxInt32, seq: math.MaxUint32, index: math.MaxInt32, due: 1e17},
	} {
		for _, size := range []int{MinSize, 200, 9000} {
			b := appendPayload([]byte("before"), testStart, s, size)[len("before"):]
			if len(b) != size {
				t.Errorf("%+v: %d bytes, want %d", s, len(b), size)
			}
			var v struct {
				Run, User string
				Seq       uint32
				Msg       int
				Due       int64 `json:"due_ns"`
			}
			if err := json.Unmarshal(b, &v); err != nil || v.Run != "0badcafe" || v.User != userName(s.user) || v.Seq != s.seq || v.Msg != s.index || v.Due != s.due {
				t.Errorf("%s: %v, %+v", b, err, v)
			}
			if got, ok := readPayload(b, testStart); !ok || got != s {
				t.Errorf("%s is read as %+v, %v", b, got, ok)
			}
			for cut := range b[:100] {
				if _, ok := readPayload(b[:cut], testStart); ok {
					t.Errorf("%q is accepted as complete", b[:cut])
				}
			}
		}
	}
}

func TestPayloadOfAnotherRunIsForeign(t *testing.T) {
	b := appendPayload(nil, payloadStart("00000001"), stamp{seq: 1}, MinSize)
	if _, ok := readPayload(b, testStart); ok {
		t.Error("it is accepted as a payload of this run")
	}
}
