package admin

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

const (
	maxStatsStreams = 32
	statsInterval   = time.Second
)

// stats serves GET /api/stats.
type stats struct {
	take  func() any
	done  <-chan struct{}
	slots slots
}

func (s *stats) get(c echo.Context) error {
	if acceptsEvents(c.Request()) {
		return s.stream(c)
	}
	return c.JSON(http.StatusOK, s.take())
}

// stream sends a snapshot per second until the client disconnects or the process stops.
func (s *stats) stream(c echo.Context) error {
	if err := s.slots.enter("streams of /api/stats"); err != nil {
		return err
	}
	defer s.slots.leave()
	out, err := openEvents(c, statsInterval)
	if err != nil {
		return err
	}
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		if err := out.add("", s.take()); err != nil {
			return err
		}
		if out.flush() != nil { // the client has disconnected
			return nil
		}
		select {
		case <-tick.C:
		case <-c.Request().Context().Done():
			return nil
		case <-s.done:
			return nil
		}
	}
}
