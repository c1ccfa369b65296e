package redis

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"usercast/hub"
)

// nextID returns the id that follows id, which must not be the highest possible one.
func nextID(id hub.ID) hub.ID {
	if id.Seq == math.MaxUint64 {
		return hub.ID{Ms: id.Ms + 1}
	}
	return hub.ID{Ms: id.Ms, Seq: id.Seq + 1}
}

var errEntryID = errors.New("invalid entry id")

// parseID reads an id as Redis writes it.
func parseID(s string) (id hub.ID, err error) {
	ms, seq, _ := strings.Cut(s, "-")
	if id.Ms, err = strconv.ParseUint(ms, 10, 64); err == nil {
		id.Seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if err != nil {
		return hub.ID{}, fmt.Errorf("%w: %w", errEntryID, err)
	}
	return id, nil
}
