package window

import "time"

// Calendar answers [Kind.Bounds] and remembers, for each kind, the last window it answered:
// for as long as the instants asked for stay inside it, and the zone is the same pointer, an
// answer costs a few comparisons and nothing is computed.
//
// The zero Calendar is ready for use. It belongs to whoever holds its lock: it is not
// safe for concurrent use. It never allocates.
type Calendar struct {
	last [lastKind + 1]bounds
}

type bounds struct {
	loc        *time.Location
	start, end int64
}

// Bounds is [Kind.Bounds].
func (c *Calendar) Bounds(k Kind, at int64, loc *time.Location) (start, end int64) {
	if !k.Valid() {
		return k.Bounds(at, loc) // Which panics.
	}
	b := &c.last[k]
	// An unused entry has start = end = 0, which holds no instant.
	if b.loc == loc && b.start <= at && at < b.end {
		return b.start, b.end
	}
	start, end = k.Bounds(at, loc)
	*b = bounds{loc, start, end}
	return start, end
}
