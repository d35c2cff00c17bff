// Package window answers which window of time an instant belongs to: an hour, a day, an ISO
// week or a month on the wall clock of an account's time zone, or all time.
//
// Windows are half open, [start, end), in Unix nanoseconds, and those of one kind and zone
// tile time: whatever the zone does (daylight saving, a change of offset, a skipped or a
// repeated date), every instant belongs to exactly one window. The start names the window in
// a pot's key (R33), so it must be the same wherever it is computed: nodes have to use the
// same time zone database.
//
// The package has no clock (R44): the instant is an argument.
package window

import (
	"fmt"
	"math"
	"time"
)

// Kind is the length of a window. Its numbers are stored: they never change their meaning.
type Kind uint8

// The kinds. The zero Kind is none of them.
const (
	// Hour starts where the wall clock shows a full hour, also in zones whose offset is
	// not a whole number of hours. An hour that the clock repeats is two windows. Where an
	// offset changes by a part of an hour, the windows beside the change are cut at it.
	Hour Kind = 1
	// Day starts when its date first shows on the wall clock, which is not always midnight.
	Day Kind = 2
	// Week starts on Monday, as in ISO 8601.
	Week Kind = 3
	// Month is a calendar month.
	Month Kind = 4
	// Lifetime is one window from 1970 on, that never ends.
	Lifetime Kind = 5
)

// lastKind is the largest valid Kind.
const lastKind = Lifetime

// names holds the text of each Kind, at its number.
func names() [lastKind + 1]string {
	return [...]string{Hour: "hour", Day: "day", Week: "week", Month: "month", Lifetime: "lifetime"}
}

// String is the name of the kind, as [Parse] reads it.
func (k Kind) String() string {
	if k.Valid() {
		return names()[k]
	}
	return fmt.Sprintf("window.Kind(%d)", uint8(k))
}

// Valid says whether k is one of the kinds.
func (k Kind) Valid() bool { return k >= Hour && k <= lastKind }

// Parse reads the name of a kind: hour, day, week, month or lifetime, in lower case.
func Parse(s string) (Kind, error) {
	for kind, name := range names() {
		if name != "" && name == s {
			return Kind(kind), nil
		}
	}
	return 0, fmt.Errorf("parse window %.20q: want hour, day, week, month or lifetime", s)
}

// Bounds is the window of kind k that holds the instant at, both in Unix nanoseconds:
// start <= at < end, and the next window starts at end. A nil loc is UTC. The window
// of Lifetime is 0 to math.MaxInt64.
//
// It is exact for windows that lie within the range of Unix nanoseconds in an int64 (the
// years 1678 to 2261); bounds beyond it are cut to it. It panics if k is not valid. It does
// not allocate, and costs some hundred nanoseconds: on a hot path, use a [Calendar].
func (k Kind) Bounds(at int64, loc *time.Location) (start, end int64) {
	if loc == nil {
		loc = time.UTC
	}
	switch k {
	case Hour:
		start, end = hourBounds(floorDiv(at, nanosPerSecond), loc)
	case Day, Week, Month:
		start, end = dateBounds(k, floorDiv(at, nanosPerSecond), loc)
	case Lifetime:
		return 0, math.MaxInt64
	default:
		panic(fmt.Sprintf("window: Bounds of %v", k))
	}
	return nanos(start), nanos(end)
}

const (
	nanosPerSecond = 1_000_000_000
	secondsPerHour = 3600
	secondsPerDay  = 86_400
)

// nanos converts seconds to nanoseconds, cut to the range of an int64.
func nanos(seconds int64) int64 {
	switch {
	case seconds > math.MaxInt64/nanosPerSecond:
		return math.MaxInt64
	case seconds < math.MinInt64/nanosPerSecond:
		return math.MinInt64
	}
	return seconds * nanosPerSecond
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// period is a stretch of time during which a zone keeps one offset from UTC, in seconds. Its
// bounds are the least and the greatest int64 where the zone knows of no change.
type period struct{ start, end, offset int64 }

// wall is what the clock on the wall shows at the instant t, in seconds since its own 1970.
func (p period) wall(t int64) int64 { return t + p.offset }

func periodAt(t int64, loc *time.Location) period {
	at := time.Unix(t, 0).In(loc)
	_, offset := at.Zone()
	p := period{math.MinInt64, math.MaxInt64, int64(offset)}
	start, end := at.ZoneBounds()
	if !start.IsZero() {
		p.start = start.Unix()
	}
	if !end.IsZero() {
		p.end = end.Unix()
	}
	return p
}

// hourBounds cuts time where the wall clock shows a full hour, and at every change of offset
// that moves the place of full hours.
func hourBounds(t int64, loc *time.Location) (start, end int64) {
	here := periodAt(t, loc)
	start = t - (here.wall(t) - floorDiv(here.wall(t), secondsPerHour)*secondsPerHour)
	end = start + secondsPerHour
	for p := here; start < p.start; {
		before := periodAt(p.start-1, loc)
		if (before.offset-here.offset)%secondsPerHour != 0 {
			start = p.start
			break
		}
		p = before
	}
	for p := here; end > p.end; {
		after := periodAt(p.end, loc)
		if (after.offset-here.offset)%secondsPerHour != 0 {
			end = p.end
			break
		}
		p = after
	}
	return start, end
}

// dateBounds finds the dates of the window, then the instants at which these begin.
//
// A clock set back over midnight shows the date before once more. Those instants stay with
// the window that had begun already: a window that has ended is never opened again.
func dateBounds(k Kind, t int64, loc *time.Location) (start, end int64) {
	first, next := span(k, floorDiv(periodAt(t, loc).wall(t), secondsPerDay))
	end = dateStart(next, loc)
	for t >= end {
		first, next = span(k, next)
		end = dateStart(next, loc)
	}
	return dateStart(first, loc), end
}

// span is the first date of the day, week or month that holds a date, and the first date
// of the next. Dates are counted in days since 1970-01-01, a Thursday.
func span(k Kind, date int64) (first, next int64) {
	switch k {
	case Week:
		const mondayToThursday = 3
		first = floorDiv(date+mondayToThursday, 7)*7 - mondayToThursday
		return first, first + 7
	case Month:
		year, month, _ := time.Unix(date*secondsPerDay, 0).UTC().Date()
		return firstOf(year, month), firstOf(year, month+1)
	default:
		return date, date + 1
	}
}

func firstOf(year int, month time.Month) int64 {
	return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).Unix() / secondsPerDay
}

// dateStart is the first instant at which the wall clock shows a date, or a later one: a zone
// may skip midnight (daylight saving) or a whole date (the date line), and may show a
// midnight twice. time.Date promises nothing for those, so the periods are walked.
func dateStart(date int64, loc *time.Location) int64 {
	midnight := date * secondsPerDay
	// No zone was ever a full day from UTC, so here the date has not begun.
	p := periodAt(midnight-secondsPerDay, loc)
	for midnight-p.offset >= p.end {
		p = periodAt(p.end, loc)
	}
	return max(midnight-p.offset, p.start)
}
