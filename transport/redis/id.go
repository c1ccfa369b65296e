package redis

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"usercast/hub"
)

func compareIDs(a, b hub.ID) int {
	return cmp.Or(cmp.Compare(a.Ms, b.Ms), cmp.Compare(a.Seq, b.Seq))
}

func before(a, b hub.ID) bool { return compareIDs(a, b) < 0 }

// previousID returns the last id before this one.
func previousID(id hub.ID) hub.ID {
	switch {
	case id.Seq > 0:
		return hub.ID{Ms: id.Ms, Seq: id.Seq - 1}
	case id.Ms > 0:
		return hub.ID{Ms: id.Ms - 1, Seq: math.MaxUint64}
	}
	return id
}

// nextID returns the first id after this one.
func nextID(id hub.ID) hub.ID {
	switch {
	case id.Seq < math.MaxUint64:
		return hub.ID{Ms: id.Ms, Seq: id.Seq + 1}
	case id.Ms < math.MaxUint64:
		return hub.ID{Ms: id.Ms + 1}
	}
	return id
}

var errEntryID = errors.New("id of an entry")

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
