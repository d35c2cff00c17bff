package pricing

import (
	"math"
	"slices"
	"testing"

	"github.com/purser-io/purser/quota/amount"
	"pgregory.net/rapid"
)

func TestCost(t *testing.T) {
	for _, c := range []struct {
		name     string
		rate     Rate
		quantity int64
		want     int64
		ok       bool
	}{
		{"nothing costs nothing", Rate{3_000_000, 1_000_000}, 0, 0, true},
		{"the first unit is rounded up", Rate{3_000_000, 1_000_000}, 1, 3, true},
		{"rounded up once, not per unit", Rate{1, 1000}, 1001, 2, true},
		{"exact at a whole multiple", Rate{1, 1000}, 2000, 2, true},
		{"explicitly free", Rate{0, 1}, amount.Max, 0, true},
		{"the edge's largest", Rate{amount.Max, amount.Max}, amount.Max, amount.Max, true},
		{"overflow", Rate{amount.Max, 1}, amount.Max, 0, false},
		{"negative quantity", Rate{1, 1}, -1, 0, false},
		{"negative price", Rate{-1, 1}, 1, 0, false},
		{"per nothing", Rate{1, 0}, 1, 0, false},
	} {
		got, ok := c.rate.Cost(c.quantity)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %+v.Cost(%d) = %d, %v; want %d, %v", c.name, c.rate, c.quantity, got, ok, c.want, c.ok)
		}
	}
}

func TestAffordable(t *testing.T) {
	for _, c := range []struct {
		name   string
		rate   Rate
		micros int64
		want   int64
	}{
		{"whole units", Rate{10, 1}, 99, 9},
		{"a micro buys a whole block", Rate{1, 1000}, 1, 1000},
		{"nothing buys nothing", Rate{1, 1000}, 0, 0},
		{"free is bounded by the edge", Rate{0, 1}, 0, amount.Max},
		{"cheap is bounded by the edge", Rate{1, math.MaxInt64}, math.MaxInt64, amount.Max},
		{"debt affords nothing", Rate{1, 1}, -1, 0},
		{"debt affords nothing free either", Rate{0, 1}, -1, 0},
		{"not a rate", Rate{1, 0}, 100, 0},
	} {
		if got := c.rate.Affordable(c.micros); got != c.want {
			t.Errorf("%s: %+v.Affordable(%d) = %d, want %d", c.name, c.rate, c.micros, got, c.want)
		}
	}
}

// R42: the inverse is the largest quantity whose price fits, and one more does not.
func TestAffordableIsTheLargestThatFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := Rate{rapid.Int64Min(0).Draw(t, "price"), rapid.Int64Min(1).Draw(t, "per")}
		micros := rapid.Int64Min(0).Draw(t, "micros")
		q := rate.Affordable(micros)
		if cost, ok := rate.Cost(q); !ok || cost > micros {
			t.Fatalf("%+v: %d units cost %d (%v), more than %d", rate, q, cost, ok, micros)
		}
		if q == amount.Max {
			return
		}
		if cost, ok := rate.Cost(q + 1); ok && cost <= micros {
			t.Fatalf("%+v: %d units cost %d, so %d are not the most that %d affords", rate, q+1, cost, q, micros)
		}
	})
}

func TestTotal(t *testing.T) {
	rates := []Rate{{1, 1000}, {1, 1000}}
	if got, ok := Total(rates, []int64{1, 1}); !ok || got != 2 {
		t.Errorf("each line is rounded up by itself: got %d, %v, want 2", got, ok)
	}
	if got, ok := Total(nil, nil); !ok || got != 0 {
		t.Errorf("no lines: got %d, %v", got, ok)
	}
	if _, ok := Total(rates, []int64{1}); ok {
		t.Error("a missing quantity was priced")
	}
	if _, ok := Total([]Rate{{1, 1}, {1, 1}}, []int64{math.MaxInt64, 1}); ok {
		t.Error("a sum over int64 was accepted")
	}
}

func TestFit(t *testing.T) {
	// Input tokens at 1 micro, output tokens at 2, images at 10.
	rates := []Rate{{1, 1}, {2, 1}, {10, 1}}
	const no, yes = false, true
	for _, c := range []struct {
		name          string
		want, minimum []int64
		flexible      []bool
		budget        int64
		out           []int64 // nil: does not fit
	}{
		{"all fits", []int64{100, 50, 1}, []int64{0, 0, 0}, []bool{no, yes, yes}, 210, []int64{100, 50, 1}},
		{"the last shrinks first", []int64{100, 50, 1}, []int64{0, 1, 0}, []bool{no, yes, yes}, 209, []int64{100, 50, 0}},
		{"then the one before", []int64{100, 50, 1}, []int64{0, 1, 0}, []bool{no, yes, yes}, 151, []int64{100, 25, 0}},
		{"down to all minimums", []int64{100, 50, 1}, []int64{0, 1, 0}, []bool{no, yes, yes}, 102, []int64{100, 1, 0}},
		{"one micro short", []int64{100, 50, 1}, []int64{0, 1, 0}, []bool{no, yes, yes}, 101, nil},
		{"fixed lines do not shrink", []int64{100, 50, 1}, []int64{0, 0, 0}, []bool{no, no, no}, 209, nil},
		{"a fixed line ignores its minimum", []int64{100, 0, 0}, []int64{7, 0, 0}, []bool{no, no, no}, 100, []int64{100, 0, 0}},
		{"a minimum above the want is the want", []int64{0, 5, 0}, []int64{0, 9, 0}, []bool{no, yes, no}, 9, nil},
		{"zero wanted fits zero", []int64{0, 0, 0}, []int64{0, 0, 0}, []bool{no, yes, no}, 0, []int64{0, 0, 0}},
		{"debt fits nothing", []int64{0, 0, 0}, []int64{0, 0, 0}, []bool{yes, yes, yes}, -1, nil},
		{"what overflows can shrink", []int64{100, math.MaxInt64, math.MaxInt64}, []int64{0, 1, 0}, []bool{no, yes, yes}, 151, []int64{100, 25, 0}},
		{"negative quantity", []int64{-1, 5, 0}, []int64{0, 0, 0}, []bool{no, yes, no}, 100, nil},
	} {
		out := make([]int64, len(rates))
		ok := Fit(rates, c.want, c.minimum, c.flexible, c.budget, out)
		if ok != (c.out != nil) || ok && !slices.Equal(out, c.out) {
			t.Errorf("%s: got %v, %v; want %v", c.name, out, ok, c.out)
		}
	}
}

func TestFitLeavesWhatWouldNotGetCheaper(t *testing.T) {
	// The free line and the one inside a rounded block come last, and must not be the victims.
	rates := []Rate{{1, 1}, {0, 1}, {1, 1000}}
	out := make([]int64, 3)
	ok := Fit(rates, []int64{10, 500, 999}, []int64{1, 0, 1}, []bool{true, true, true}, 5, out)
	if want := []int64{4, 500, 999}; !ok || !slices.Equal(out, want) {
		t.Errorf("got %v, %v; want %v", out, ok, want)
	}
}

func TestFitRefusesUnequalLengths(t *testing.T) {
	rates, one, yes := []Rate{{1, 1}}, []int64{1}, []bool{true}
	for i, ok := range []bool{
		Fit(rates, nil, one, yes, 9, make([]int64, 1)),
		Fit(rates, one, nil, yes, 9, make([]int64, 1)),
		Fit(rates, one, one, nil, 9, make([]int64, 1)),
		Fit(rates, one, one, yes, 9, nil),
	} {
		if ok {
			t.Errorf("case %d: unequal lengths were accepted", i)
		}
	}
}

// naiveFit shrinks unit by unit, as R42 says it in words.
func naiveFit(rates []Rate, want, minimum []int64, flexible []bool, budget int64) ([]int64, bool) {
	out := slices.Clone(want)
	fits := func() bool { total, _ := Total(rates, out); return total <= budget }
	for i := len(rates) - 1; i >= 0; i-- {
		low, _ := rates[i].Cost(minimum[i])
		high, _ := rates[i].Cost(want[i])
		for flexible[i] && low < high && out[i] > minimum[i] && !fits() {
			out[i]--
		}
	}
	return out, fits()
}

func TestFitAgreesWithShrinkingUnitByUnit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 5).Draw(t, "lines")
		rates, flexible := make([]Rate, n), make([]bool, n)
		want, minimum, out := make([]int64, n), make([]int64, n), make([]int64, n)
		for i := range n {
			rates[i] = Rate{rapid.Int64Range(0, 20).Draw(t, "price"), rapid.Int64Range(1, 20).Draw(t, "per")}
			want[i] = rapid.Int64Range(0, 60).Draw(t, "want")
			minimum[i] = rapid.Int64Range(0, 60).Draw(t, "minimum")
			flexible[i] = rapid.Bool().Draw(t, "flexible")
		}
		budget := rapid.Int64Range(-1, 800).Draw(t, "budget")
		expected, fits := naiveFit(rates, want, minimum, flexible, budget)
		ok := Fit(rates, want, minimum, flexible, budget, out)
		if ok != fits || ok && !slices.Equal(out, expected) {
			t.Fatalf("got %v, %v; want %v, %v", out, ok, expected, fits)
		}
	})
}

func TestNothingAllocates(t *testing.T) {
	rates := []Rate{{3, 1000}, {15, 1000}}
	want, minimum, flexible, out := []int64{5000, 5000}, []int64{0, 1}, []bool{false, true}, make([]int64, 2)
	if n := testing.AllocsPerRun(100, func() { Fit(rates, want, minimum, flexible, 50, out) }); n != 0 {
		t.Errorf("Fit allocates %v times", n)
	}
}

func BenchmarkFit(b *testing.B) {
	rates := []Rate{{3_000_000, 1_000_000}, {300_000, 1_000_000}, {15_000_000, 1_000_000}}
	want, minimum := []int64{4000, 1000, 2000}, []int64{0, 0, 16}
	flexible, out := []bool{false, false, true}, make([]int64, 3)
	for _, c := range []struct {
		name   string
		budget int64
	}{{"fits", 50_000}, {"shrinks", 20_000}, {"refused", 100}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Fit(rates, want, minimum, flexible, c.budget, out)
			}
		})
	}
}
