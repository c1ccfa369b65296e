package fleet

import (
	"time"

	"usercast/hub"
)

const (
	// listAge is how long a received marker is listed in own ones. Every hub publishes one every 10 s, so each marker is
	// listed in three of them: two may be lost.
	listAge = 35 * time.Second
	// pointAge is how long a point is kept, for a publisher that lags behind and lists old ones.
	pointAge = 150 * time.Second

	// Limits for forged markers. 1,000 hubs publish 15,000 within pointAge. A list of maxList has about 54 KiB.
	maxPoints = 16384
	maxList   = 2000
)

// points are the markers of one generation that were received lately.
type points struct {
	rows   []row  // oldest first
	first  uint64 // ordinal of rows[0]
	byName map[hub.MarkerName]uint64
}

type row struct {
	Point
	at time.Duration // when it was received
}

func newPoints() points { return points{byName: map[hub.MarkerName]uint64{}} }

// end returns the ordinal of the next point.
func (s *points) end() uint64 { return s.first + uint64(len(s.rows)) }

// add adds a point and drops old ones. It returns false if the name is known already: Redis has delivered it twice, or
// it is forged, and its first place stays.
func (s *points) add(p Point, now time.Duration) bool {
	if _, known := s.byName[p.Name]; known {
		return false
	}
	s.byName[p.Name] = s.end()
	s.rows = append(s.rows, row{p, now})
	for len(s.rows) > maxPoints || now-s.rows[0].at > pointAge {
		delete(s.byName, s.rows[0].Name)
		s.rows = s.rows[1:]
		s.first++
	}
	return true
}

func (s *points) get(name hub.MarkerName) (p Point, ordinal uint64, ok bool) {
	if ordinal, ok = s.byName[name]; !ok {
		return Point{}, 0, false
	}
	return s.rows[ordinal-s.first].Point, ordinal, true
}

// list returns the points to list in a marker.
func (s *points) list(now time.Duration) (list []Point) {
	rows := s.rows[max(0, len(s.rows)-maxList):]
	for len(rows) > 0 && now-rows[0].at > listAge {
		rows = rows[1:]
	}
	for _, r := range rows {
		list = append(list, r.Point)
	}
	return list
}
