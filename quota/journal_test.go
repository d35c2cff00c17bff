package quota

import (
	"reflect"
	"testing"
)

// TestLateBehindUsage: of every unit and limit what an expiry charged before is taken off, never
// more than there is (R23).
func TestLateBehindUsage(t *testing.T) {
	used := func(in, out, inMicros, outMicros int64) Record {
		return Record{Usage: []Quantity{{"in", in}, {"out", out}}, Lines: []int64{inMicros, outMicros}, Kind: Expired,
			Slots: []Slot{{Kind: PotWallet, Charge: inMicros + outMicros}}}
	}
	for _, c := range []struct {
		name    string
		expired Record
		final   Record
		usage   []Quantity
		lines   []int64
		charges []int64 // of the slots
	}{
		{"nothing was charged", Record{Kind: Expired}, used(10, 20, 100, 400), []Quantity{{"in", 10}, {"out", 20}}, []int64{100, 400}, []int64{500}},
		{"the rest", used(10, 5, 100, 100), used(10, 20, 100, 400), []Quantity{{"in", 0}, {"out", 15}}, []int64{0, 300}, []int64{300}},
		{"the same", used(10, 20, 100, 400), used(10, 20, 100, 400), []Quantity{{"in", 0}, {"out", 0}}, []int64{0, 0}, []int64{0}},
		{"less", used(10, 20, 100, 400), used(5, 10, 50, 200), []Quantity{{"in", 0}, {"out", 0}}, []int64{0, 0}, []int64{0}},
		{"less of one meter makes up for more of another", used(10, 5, 100, 100), used(4, 20, 40, 400),
			[]Quantity{{"in", 0}, {"out", 15}}, []int64{0, 240}, []int64{240}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.expired.Entry(1, 1)
			c.final.Kind = Committed
			want := used(0, 0, 0, 0)
			got := c.final.Late(&before)
			want.Kind, want.Phase, want.Usage, want.Lines, want.Slots = Committed, PhaseLate, c.usage, c.lines, nil
			for _, charge := range c.charges {
				want.Slots = append(want.Slots, Slot{Kind: PotWallet, Charge: charge, Uncovered: charge})
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("LATE is %+v, want %+v", got, want)
			}
			if c.final.Charged() == got.Charged() && before.Charged > 0 {
				t.Errorf("the commit itself was changed, or nothing was taken off")
			}
		})
	}
}

// TestLateBehindUsageByWindow: of a limit with two windows the older one was charged first.
func TestLateBehindUsageByWindow(t *testing.T) {
	r := Record{Kind: Expired, Usage: []Quantity{{"out", 7}}, Lines: []int64{70}}
	before := r.Entry(1, 1)
	final := Record{Kind: Committed, Usage: []Quantity{{"out", 12}}, Lines: []int64{120}, Slots: []Slot{
		{Kind: PotWallet, Charge: 120},
		{Kind: PotQuota, Unit: "out", Charge: 5},
		{Kind: PotQuota, Unit: "out", Charge: 7, Continues: true},
		{Kind: PotBudget, Charge: 40},
		{Kind: PotBudget, Charge: 80, Continues: true},
		{Kind: PotQuota, Unit: "in"},
	}}
	late := final.Late(&before)
	for i, want := range []int64{50, 0, 5, 0, 50, 0} {
		if s := late.Slots[i]; s.Charge != want || s.Uncovered != want {
			t.Errorf("slot %d charges %d, %d of it uncovered; want %d", i, s.Charge, s.Uncovered, want)
		}
	}
}
