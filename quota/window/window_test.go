package window

import (
	"math"
	"testing"
	"time"
	_ "time/tzdata" // The tests must not depend on the machine's zones.

	"pgregory.net/rapid"
)

func load(t testing.TB, zone string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatalf("load zone: %v", err)
	}
	return loc
}

// instant reads a time with its offset, so that no test instant is ambiguous.
func instant(t testing.TB, text string) int64 {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatalf("parse instant: %v", err)
	}
	return at.UnixNano()
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		name, zone     string
		kind           Kind
		at, start, end string
	}{
		{"an hour", "UTC", Hour, "2026-01-15T10:59:59Z", "2026-01-15T10:00:00Z", "2026-01-15T11:00:00Z"},
		{"the start belongs to the window", "UTC", Hour, "2026-01-15T10:00:00Z", "2026-01-15T10:00:00Z", "2026-01-15T11:00:00Z"},
		{"a half-hour offset", "Asia/Kolkata", Hour, "2026-01-15T10:10:00Z", "2026-01-15T09:30:00Z", "2026-01-15T10:30:00Z"},
		{"a quarter-hour offset", "Asia/Kathmandu", Hour, "2026-01-15T10:10:00Z", "2026-01-15T09:15:00Z", "2026-01-15T10:15:00Z"},
		{"the first of a repeated hour", "Europe/Berlin", Hour, "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+02:00"},
		{"the second of a repeated hour", "Europe/Berlin", Hour, "2026-10-25T02:30:00+01:00", "2026-10-25T02:00:00+01:00", "2026-10-25T03:00:00+01:00"},
		{"before half an hour is repeated", "Australia/Lord_Howe", Hour, "2026-04-05T01:45:00+11:00", "2026-04-05T01:00:00+11:00", "2026-04-05T02:00:00+11:00"},
		{"the repeated half hour", "Australia/Lord_Howe", Hour, "2026-04-05T01:45:00+10:30", "2026-04-05T01:30:00+10:30", "2026-04-05T02:00:00+10:30"},
		{"after the repeated half hour", "Australia/Lord_Howe", Hour, "2026-04-05T02:45:00+10:30", "2026-04-05T02:00:00+10:30", "2026-04-05T03:00:00+10:30"},
		{"half an hour is skipped", "Australia/Lord_Howe", Hour, "2026-10-04T02:45:00+11:00", "2026-10-04T02:30:00+11:00", "2026-10-04T03:00:00+11:00"},

		{"a day west of UTC", "America/New_York", Day, "2026-01-15T23:30:00-05:00", "2026-01-15T00:00:00-05:00", "2026-01-16T00:00:00-05:00"},
		{"a day of 23 hours", "America/New_York", Day, "2026-03-08T12:00:00-04:00", "2026-03-08T00:00:00-05:00", "2026-03-09T00:00:00-04:00"},
		{"a day of 25 hours", "America/New_York", Day, "2026-11-01T12:00:00-05:00", "2026-11-01T00:00:00-04:00", "2026-11-02T00:00:00-05:00"},
		{"a day of 23.5 hours", "Australia/Lord_Howe", Day, "2026-10-04T12:00:00+11:00", "2026-10-04T00:00:00+10:30", "2026-10-05T00:00:00+11:00"},
		{"two hours are skipped", "Antarctica/Troll", Day, "2026-03-29T12:00:00+02:00", "2026-03-29T00:00:00+00:00", "2026-03-30T00:00:00+02:00"},
		{"midnight is skipped", "America/Sao_Paulo", Day, "2018-11-04T12:00:00-02:00", "2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"},
		{"the day before a skipped midnight", "America/Sao_Paulo", Day, "2018-11-03T23:59:59-03:00", "2018-11-03T00:00:00-03:00", "2018-11-04T01:00:00-02:00"},
		{"the hour before midnight is repeated", "America/Sao_Paulo", Day, "2018-02-17T23:30:00-03:00", "2018-02-17T00:00:00-02:00", "2018-02-18T00:00:00-03:00"},
		{"midnight is shown twice", "Asia/Amman", Day, "2021-10-29T00:30:00+02:00", "2021-10-29T00:00:00+03:00", "2021-10-30T00:00:00+02:00"},
		{"an ended date shows again and stays closed", "America/St_Johns", Day, "2010-11-06T23:30:00-03:30", "2010-11-07T00:00:00-02:30", "2010-11-08T00:00:00-03:30"},
		{"before the skipped date", "Pacific/Apia", Day, "2011-12-29T23:00:00-10:00", "2011-12-29T00:00:00-10:00", "2011-12-30T00:00:00-10:00"},
		{"after the skipped date", "Pacific/Apia", Day, "2011-12-31T00:00:00+14:00", "2011-12-31T00:00:00+14:00", "2012-01-01T00:00:00+14:00"},
		{"a date that came twice is one window", "America/Juneau", Day, "1867-10-18T23:00:00-08:57", "1867-10-18T08:57:41Z", "1867-10-20T08:57:41Z"},

		{"a week ends on Sunday", "UTC", Week, "2026-01-04T23:59:59Z", "2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"},
		{"a week starts on Monday", "UTC", Week, "2026-01-05T00:00:00Z", "2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"},
		{"a week before 1970", "UTC", Week, "1969-12-28T12:00:00Z", "1969-12-22T00:00:00Z", "1969-12-29T00:00:00Z"},
		{"a week of 167 hours", "Europe/Berlin", Week, "2026-03-25T12:00:00+01:00", "2026-03-23T00:00:00+01:00", "2026-03-30T00:00:00+02:00"},
		{"a week of six days", "Pacific/Apia", Week, "2011-12-28T12:00:00-10:00", "2011-12-26T00:00:00-10:00", "2012-01-02T00:00:00+14:00"},

		{"February", "UTC", Month, "2026-02-28T23:59:59Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"},
		{"February of a leap year", "UTC", Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		{"no leap year in 2100", "UTC", Month, "2100-02-28T12:00:00Z", "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z"},
		{"December", "Asia/Tokyo", Month, "2026-12-31T23:59:59+09:00", "2026-12-01T00:00:00+09:00", "2027-01-01T00:00:00+09:00"},
		{"the month of the zone, not of UTC", "Asia/Tokyo", Month, "2026-02-28T15:00:00Z", "2026-03-01T00:00:00+09:00", "2026-04-01T00:00:00+09:00"},
		{"a month over daylight saving", "Europe/Berlin", Month, "2026-03-31T23:59:59+02:00", "2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00"},
	} {
		start, end := c.kind.Bounds(instant(t, c.at), load(t, c.zone))
		if start != instant(t, c.start) || end != instant(t, c.end) {
			in := func(ns int64) string { return time.Unix(0, ns).In(load(t, c.zone)).Format(time.RFC3339) }
			t.Errorf("%s: %v of %s in %s is [%s, %s), want [%s, %s)",
				c.name, c.kind, c.at, c.zone, in(start), in(end), c.start, c.end)
		}
	}
}

func TestLifetimeIsOneWindow(t *testing.T) {
	for _, at := range []int64{math.MinInt64, -1, 0, 1, math.MaxInt64} {
		if start, end := Lifetime.Bounds(at, nil); start != 0 || end != math.MaxInt64 {
			t.Errorf("at %d: [%d, %d)", at, start, end)
		}
	}
}

func TestNoZoneIsUTC(t *testing.T) {
	at := instant(t, "2026-01-15T10:20:30Z")
	for kind := Hour; kind <= lastKind; kind++ {
		start, end := kind.Bounds(at, nil)
		if s, e := kind.Bounds(at, time.UTC); s != start || e != end {
			t.Errorf("%v: [%d, %d) without a zone, [%d, %d) in UTC", kind, start, end, s, e)
		}
	}
}

func TestTheEndsOfTimeAreCut(t *testing.T) {
	for _, zone := range zones() {
		loc := load(t, zone)
		for kind := Hour; kind < Lifetime; kind++ {
			if start, end := kind.Bounds(math.MinInt64, loc); start != math.MinInt64 || end <= start {
				t.Errorf("%v in %s at the first instant: [%d, %d)", kind, zone, start, end)
			}
			if start, end := kind.Bounds(math.MaxInt64, loc); end != math.MaxInt64 || start >= end {
				t.Errorf("%v in %s at the last instant: [%d, %d)", kind, zone, start, end)
			}
		}
	}
}

func zones() []string {
	return []string{
		"UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "America/St_Johns",
		"Australia/Lord_Howe", "Pacific/Apia", "Antarctica/Troll", "Asia/Kathmandu", "Asia/Kolkata",
		"Asia/Amman", "Africa/Monrovia", "America/Juneau", "Asia/Manila", "Pacific/Kiritimati",
	}
}

// tile checks the window of at and its two neighbours, and returns its end.
func tile(t interface{ Fatalf(string, ...any) }, k Kind, at int64, loc *time.Location) int64 {
	start, end := k.Bounds(at, loc)
	if start > at || at >= end {
		t.Fatalf("%v in %v: [%d, %d) does not hold %d", k, loc, start, end, at)
	}
	for _, inside := range []int64{start, end - 1} {
		if s, e := k.Bounds(inside, loc); s != start || e != end {
			t.Fatalf("%v in %v: %d is in [%d, %d), not in [%d, %d)", k, loc, inside, s, e, start, end)
		}
	}
	if s, e := k.Bounds(end, loc); s != end || e <= end {
		t.Fatalf("%v in %v: [%d, %d) is followed by [%d, %d)", k, loc, start, end, s, e)
	}
	if _, e := k.Bounds(start-1, loc); e != start {
		t.Fatalf("%v in %v: the window before [%d, %d) ends at %d", k, loc, start, end, e)
	}
	return end
}

func TestWindowsTileTimeAnywhere(t *testing.T) {
	first, last := instant(t, "1700-01-01T00:00:00Z"), instant(t, "2250-01-01T00:00:00Z")
	rapid.Check(t, func(t *rapid.T) {
		loc, err := time.LoadLocation(rapid.SampledFrom(zones()).Draw(t, "zone"))
		if err != nil {
			t.Fatalf("load zone: %v", err)
		}
		kind := Kind(rapid.IntRange(int(Hour), int(Month)).Draw(t, "kind"))
		tile(t, kind, rapid.Int64Range(first, last).Draw(t, "at"), loc)
	})
}

// Random instants seldom meet a change of offset, so every change of every zone is visited,
// window by window from two hours before it to two hours after.
func TestWindowsTileTimeAroundEveryChangeOfOffset(t *testing.T) {
	last := time.Unix(0, instant(t, "2040-01-01T00:00:00Z"))
	for _, zone := range zones() {
		loc := load(t, zone)
		changes := 0
		_, change := time.Unix(0, instant(t, "1800-01-01T00:00:00Z")).In(loc).ZoneBounds()
		for !change.IsZero() && change.Before(last) {
			changes++
			for kind := Hour; kind <= Month; kind++ {
				until := change.Add(2 * time.Hour).UnixNano()
				for at := change.Add(-2 * time.Hour).UnixNano(); at < until; {
					at = tile(t, kind, at, loc)
				}
			}
			_, change = change.ZoneBounds()
		}
		if changes == 0 && zone != "UTC" {
			t.Errorf("%s: no change of offset was visited", zone)
		}
	}
}

func TestKindsAsText(t *testing.T) {
	for kind, name := range map[Kind]string{1: "hour", 2: "day", 3: "week", 4: "month", 5: "lifetime"} {
		if kind.String() != name {
			t.Errorf("Kind(%d) is called %q, want %q", uint8(kind), kind, name)
		}
		if got, err := Parse(name); err != nil || got != kind {
			t.Errorf("Parse(%q) = %v, %v", name, got, err)
		}
	}
	for _, text := range []string{"", "Hour", "year", "window.Kind(0)"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v", text, got)
		}
	}
	if Kind(0).Valid() || Kind(6).Valid() || Kind(6).String() != "window.Kind(6)" {
		t.Errorf("an unknown kind passes: %v", Kind(6))
	}
}

func TestBoundsOfAnUnknownKindPanics(t *testing.T) {
	for name, call := range map[string]func(){
		"Bounds":   func() { Kind(0).Bounds(0, nil) },
		"Calendar": func() { new(Calendar).Bounds(lastKind+1, 0, nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s did not panic", name)
				}
			}()
			call()
		}()
	}
}

func TestCalendarAgreesWithBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var calendar Calendar
		berlin, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatalf("load zone: %v", err)
		}
		at := rapid.Int64Range(-1e18, 2e18).Draw(t, "at")
		for range 20 {
			kind := Kind(rapid.IntRange(int(Hour), int(Lifetime)).Draw(t, "kind"))
			loc := rapid.SampledFrom([]*time.Location{nil, time.UTC, berlin}).Draw(t, "zone")
			at += rapid.Int64Range(-1e14, 1e14).Draw(t, "step")
			start, end := calendar.Bounds(kind, at, loc)
			if s, e := kind.Bounds(at, loc); s != start || e != end {
				t.Fatalf("%v at %d in %v: [%d, %d) from the calendar, want [%d, %d)", kind, at, loc, start, end, s, e)
			}
		}
	})
}

func TestNothingAllocates(t *testing.T) {
	var calendar Calendar
	loc, at := load(t, "Europe/Berlin"), instant(t, "2026-03-29T01:30:00Z")
	n := testing.AllocsPerRun(100, func() {
		for kind := Hour; kind <= Lifetime; kind++ {
			calendar.Bounds(kind, at, loc)
		}
		at += int64(7 * time.Hour)
	})
	if n != 0 {
		t.Errorf("five calls allocate %v times", n)
	}
}

func BenchmarkBounds(b *testing.B) {
	loc, at := load(b, "Europe/Berlin"), instant(b, "2026-06-15T01:30:00Z")
	b.ReportAllocs()
	for b.Loop() {
		Month.Bounds(at, loc)
	}
}

func BenchmarkCalendar(b *testing.B) {
	var calendar Calendar
	loc, at := load(b, "Europe/Berlin"), instant(b, "2026-06-15T01:30:00Z")
	b.ReportAllocs()
	for b.Loop() {
		calendar.Bounds(Month, at, loc)
	}
}
