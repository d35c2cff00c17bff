package usage

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]By{"feature": {"feature", ""}, "hour": {"hour", ""}, "label": {"label", ""}, "label=team": {"label", "team"}} {
		if got, err := ParseBy(in); err != nil || got != want {
			t.Errorf("%s = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "labels", "label=", "feature=x", "team"} {
		if _, err := ParseBy(in); err == nil {
			t.Errorf("%q was read", in)
		}
	}
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{"24h": now.Add(-24 * time.Hour), "2d": now.Add(-48 * time.Hour), "0s": now,
		"2026-03-01": time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), "2026-03-01T05:00:00+02:00": time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)} {
		if got, err := ParseSince(in, now); err != nil || !got.Equal(want) {
			t.Errorf("%s = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "yesterday", "-5h", "5", "d", "-1d", "99999999999d"} {
		if got, err := ParseSince(in, now); err == nil {
			t.Errorf("%q was read as %v", in, got)
		}
	}
}

func TestSumsDoNotOverflow(t *testing.T) {
	s := sums{}
	if err := s.add("a", "m", math.MaxInt64, 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.add("a", "m", 1, 1, 1); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("error = %v", err)
	}
	s = sums{}
	for _, group := range []string{"a", "b"} {
		if err := s.add(group, "m", 1, 1, math.MaxInt64); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.report(Query{By: By{Kind: "feature"}}); err == nil {
		t.Error("the total overflowed unseen")
	}
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		v, most int64
		want    string
	}{
		{0, 1, ""}, {1, 1, strings.Repeat("█", barWidth)}, {1, 2, strings.Repeat("█", barWidth/2)}, {1, barWidth * 8, "▏"},
		{math.MaxInt64, math.MaxInt64, strings.Repeat("█", barWidth)},
	} {
		if got := bar(c.v, c.most); got != c.want {
			t.Errorf("bar(%d, %d) = %q, want %q", c.v, c.most, got, c.want)
		}
	}
}
