package metrics

import "usercast/transport/redis"

// The values of the label scope of usercast_history_seconds.
const (
	scopeHere      = "here"
	scopeElsewhere = "elsewhere"
)

// A FleetHub is one hub on the same Redis, as its newest marker describes it.
type FleetHub struct {
	Name          string   `json:"name"`
	Version       string   `json:"version"`
	Streams       int      `json:"streams"`
	Users         int      `json:"users"`
	AgeSeconds    *float64 `json:"age_seconds,omitempty"` // since its newest marker was received; nil if none was
	Self          bool     `json:"self"`
	OtherServer   bool     `json:"other_server"`
	OtherPatterns bool     `json:"other_patterns"`
}

// fleetOf returns the hubs of a fleet, or why they are not visible.
func fleetOf(feeds []redis.Stats) (fleet []FleetHub, why string) {
	fleet = []FleetHub{}
	for _, f := range feeds {
		if f.Feed == "stream" {
			why = "with --feed stream, hubs do not write markers"
		}
		for _, h := range f.Hubs {
			one := FleetHub{
				Name: h.Name, Version: h.Version, Streams: h.Streams, Users: h.Users,
				Self: h.Self, OtherServer: h.OtherServer, OtherPatterns: h.OtherPatterns,
			}
			if age := h.Age.Seconds(); age >= 0 {
				one.AgeSeconds = &age
			}
			fleet = append(fleet, one)
		}
	}
	if why == "" && len(feeds) > 1 {
		why = "with several --redis, hubs do not write markers"
	}
	return fleet, why
}

// countHubs returns the number of hubs on the same Redis, including this one.
func countHubs(feeds []redis.Stats) int {
	n := min(len(feeds), 1) // this hub, also where hubs do not write markers
	for _, f := range feeds {
		for _, h := range f.Hubs {
			if !h.Self && !h.OtherServer {
				n++
			}
		}
	}
	return n
}

func countMismatches(feeds []redis.Stats) (n uint64) {
	for _, f := range feeds {
		n += f.Mismatches
	}
	return n
}
