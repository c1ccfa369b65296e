package hub

import (
	"math"
	"reflect"
	"testing"
	"time"
)

func TestConfigDefaults(t *testing.T) {
	want := Config{
		QueueFrames: 1024, QueueBytes: 1 << 20, QueueGrace: 250 * time.Millisecond, QueueTotalBytes: 256 << 20,
		MaxClients: math.MaxInt, MaxClientsPerUser: 32, FanOut: 512, GapSpread: 3 * time.Second,
		HistoryPerUser: 256, HistoryAge: 2 * time.Minute, HistoryBytes: 64 << 20,
		MarkerAge: 2*time.Minute + 30*time.Second,
	}
	defaults := (Config{}).withDefaults()
	if wire := defaults.Encode(nil, Entry{Payload: "hello"}, false); string(wire) != "hello" {
		t.Errorf("the default encoder returns %q", wire)
	}
	defaults.Encode = nil // a func is never equal
	if got := defaults; !reflect.DeepEqual(got, want) {
		t.Errorf("0: got %+v, want %+v", got, want)
	}
	negative := Unlimited(Config{MaxClients: NoLimit})
	want = Config{
		QueueFrames: math.MaxInt, QueueBytes: math.MaxInt, QueueTotalBytes: math.MaxInt64,
		MaxClients: math.MaxInt, MaxClientsPerUser: math.MaxInt, FanOut: math.MaxInt,
		MarkerAge: 30 * time.Second,
	}
	got := negative.withDefaults()
	got.Encode = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("NoLimit and Off: got %+v, want %+v", got, want)
	}
}

// A hub does not have the operations of the other kind, which would number an entry wrongly.
func TestHubsHaveOnlyTheirOwnOperations(t *testing.T) {
	for form, others := range map[any][]string{
		(*PubSub)(nil):     {"Load", "Append", "Lose", "Reset"},
		(*StreamFeed)(nil): {"Publish", "GapFor", "GapForAll", "Skip", "Begin", "Mark"},
	} {
		for _, name := range others {
			if _, ok := reflect.TypeOf(form).MethodByName(name); ok {
				t.Errorf("%T has %s", form, name)
			}
		}
	}
}
