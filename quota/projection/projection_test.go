package projection_test

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/projection"
	"github.com/purser-io/purser/quota/token"
)

const (
	lane  = quota.LaneID(7)
	other = quota.LaneID(8)
	hour  = int64(time.Hour)
)

func part(no uint32, amount int64) token.Part { return token.Part{Allotment: no, Amount: amount} }

// commit is a record of 12 micros for two meters, settled at a time.
func commit(sequence uint64, at int64, slots ...quota.Slot) quota.Record {
	return quota.Record{EntryKey: quota.EntryKey{Lane: lane, Sequence: sequence}, Nonce: 5, Kind: quota.Committed, Account: "team",
		Payer: "org", Principal: "p", Feature: "chat", PriceVersion: 3,
		Usage: []quota.Quantity{{Meter: "tokens", Quantity: 100}, {Meter: "requests", Quantity: 1}}, Lines: []int64{10, 2},
		Held: 20, Slots: slots, ReservedAt: at - 5, SettledAt: at}
}

func pots() map[quota.AllotmentRef]quota.PotRef {
	return map[quota.AllotmentRef]quota.PotRef{
		{Lane: lane, Number: 1}: {Payer: "org", Pot: "g/first"},
		{Lane: lane, Number: 2}: {Payer: "org", Pot: "g/second"},
		{Lane: lane, Number: 3}: {Payer: "org", Pot: "b/team/cap/0/"},
	}
}

func batch(no int64, records ...quota.Record) quota.Batch {
	return quota.Batch{Lane: lane, No: no, Records: records}
}

func TestBuildCovered(t *testing.T) {
	r := commit(1, 3*hour+9,
		quota.Slot{Kind: quota.PotWallet, Anchor: 1, Parts: []token.Part{part(1, 4), part(2, 5), part(1, 3)}, Charge: 12},
		quota.Slot{Kind: quota.PotBudget, Anchor: 3, Parts: []token.Part{part(3, 12)}, Charge: 12})
	p := projection.Build(quota.Cursor{Lane: lane, No: 4}, 77, []quota.Batch{batch(5, r)}, pots())
	if p.Lane != lane || p.From != 4 || p.To != 5 || p.Now != 77 || len(p.Claims) != 0 {
		t.Fatalf("got %+v", p)
	}
	e := p.Events[0]
	if e.Key != r.EntryKey || e.Nonce != 5 || e.Charged != 12 || e.Covered != 12 || e.Uncovered != 0 || e.Late {
		t.Errorf("event %+v", e)
	}
	if want := []quota.GrantUse{{Grant: "first", Micros: 7}, {Grant: "second", Micros: 5}}; !reflect.DeepEqual(e.Grants, want) {
		t.Errorf("grants %+v", e.Grants)
	}
	want := []quota.SpentDelta{
		{PotRef: quota.PotRef{Payer: "org", Pot: "b/team/cap/0/"}, Amount: 12},
		{PotRef: quota.PotRef{Payer: "org", Pot: "g/first"}, Amount: 7},
		{PotRef: quota.PotRef{Payer: "org", Pot: "g/second"}, Amount: 5},
	}
	if !reflect.DeepEqual(p.Spent, want) {
		t.Errorf("spent %+v", p.Spent)
	}
	rollups := []quota.Rollup{
		{Account: "team", Hour: 3 * hour, Feature: "chat", Meter: "requests", Quantity: 1, Micros: 2, Events: 1},
		{Account: "team", Hour: 3 * hour, Feature: "chat", Meter: "tokens", Quantity: 100, Micros: 10, Events: 1},
	}
	if !reflect.DeepEqual(p.Rollups, rollups) {
		t.Errorf("rollups %+v", p.Rollups)
	}
}

// TestBuildExpired: an expiry counts if something was used before it (R23).
func TestBuildExpired(t *testing.T) {
	used := commit(1, hour, quota.Slot{Kind: quota.PotWallet, Anchor: 1, Parts: []token.Part{part(1, 12)}, Charge: 12})
	used.Kind = quota.Expired
	unused := used
	unused.Sequence, unused.Usage, unused.Lines, unused.Slots = 2, nil, nil, nil
	p := projection.Build(quota.Cursor{Lane: lane}, 0, []quota.Batch{batch(1, used, unused)}, pots())
	if len(p.Events) != 1 || p.Events[0].Key != used.EntryKey || p.Events[0].Covered != 12 {
		t.Errorf("events %+v", p.Events)
	}
}

// TestBuildUncovered: an uncovered amount is claimed of the pot that the slot's first
// allotment belongs to, or of the pot it names; of the wallet as a whole (R25).
func TestBuildUncovered(t *testing.T) {
	r := commit(1, hour,
		quota.Slot{Kind: quota.PotWallet, Anchor: 1, Parts: []token.Part{part(1, 4)}, Charge: 12, Uncovered: 8},
		quota.Slot{Kind: quota.PotBudget, Anchor: 3, Charge: 12, Uncovered: 12},
		quota.Slot{Kind: quota.PotQuota, Pot: "q/team/plan/0/", Charge: 1, Uncovered: 1})
	late := r.Late(nil)
	p := projection.Build(quota.Cursor{Lane: lane}, 0, []quota.Batch{batch(1, r), batch(2, late)}, pots())
	want := []quota.Claim{
		{Payer: "org", Kind: quota.PotWallet, Amount: 8 + 12},
		{Payer: "org", Kind: quota.PotBudget, Pot: "b/team/cap/0/", Amount: 12 + 12},
		{Payer: "org", Kind: quota.PotQuota, Pot: "q/team/plan/0/", Amount: 1 + 1},
	}
	if !reflect.DeepEqual(p.Claims, want) {
		t.Errorf("claims %+v", p.Claims)
	}
	spent := []quota.SpentDelta{ // what is claimed of the wallet is counted where it is debited
		{PotRef: quota.PotRef{Payer: "org", Pot: "b/team/cap/0/"}, Amount: 24},
		{PotRef: quota.PotRef{Payer: "org", Pot: "g/first"}, Amount: 4},
		{PotRef: quota.PotRef{Payer: "org", Pot: "q/team/plan/0/"}, Amount: 2},
	}
	if !reflect.DeepEqual(p.Spent, spent) {
		t.Errorf("spent %+v", p.Spent)
	}
	if a, b := p.Events[0], p.Events[1]; a.Covered != 4 || a.Uncovered != 8 || a.Late || b.Covered != 0 || b.Uncovered != 12 || !b.Late {
		t.Errorf("events %+v and %+v", a, b)
	}
	if p.To != 2 || p.Rollups[0].Events != 2 {
		t.Errorf("to %d, %+v", p.To, p.Rollups)
	}
}

// TestBuildSkips: only commits are events; the cursor moves over everything.
func TestBuildSkips(t *testing.T) {
	released, expired := commit(1, hour), commit(2, hour)
	released.Kind, expired.Kind = quota.Released, quota.Expired
	expired.Usage, expired.Lines = nil, nil
	p := projection.Build(quota.Cursor{Lane: lane, No: 1}, 0, []quota.Batch{batch(2, released), batch(3, expired)}, pots())
	if p.To != 3 || len(p.Events)+len(p.Rollups)+len(p.Claims)+len(p.Spent) != 0 {
		t.Fatalf("got %+v", p)
	}
	if p = projection.Build(quota.Cursor{Lane: lane, No: 3}, 0, nil, nil); p.From != 3 || p.To != 3 {
		t.Fatalf("of nothing: %+v", p)
	}
}

// TestRefs lists what Build looks up, each once and in order, under the owner's lane.
func TestRefs(t *testing.T) {
	mine := commit(1, hour, quota.Slot{Kind: quota.PotWallet, Anchor: 9, Parts: []token.Part{part(2, 1), part(1, 1), part(2, 1)}},
		quota.Slot{Kind: quota.PotBudget, Anchor: 4, Uncovered: 1})
	foreign := commit(2, hour, quota.Slot{Kind: quota.PotWallet, Parts: []token.Part{part(1, 1)}})
	foreign.Lane = other
	got := projection.Refs([]quota.Batch{batch(1, foreign, mine), batch(2, mine)})
	want := []quota.AllotmentRef{{Lane: lane, Number: 1}, {Lane: lane, Number: 2}, {Lane: lane, Number: 4}, {Lane: other, Number: 1}}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v", got)
	}
}

// TestBuildConserves: whatever is charged is spent on a pot or claimed, however the batches
// are cut, and the same batches make the same projection.
func TestBuildConserves(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var batches []quota.Batch
	var covered, uncovered int64
	for no := int64(1); no <= 20; no++ {
		var records []quota.Record
		for n := range 1 + random.IntN(5) {
			a, b, u := int64(random.IntN(50)+1), int64(random.IntN(50)+1), int64(random.IntN(3))
			covered, uncovered = covered+a+b, uncovered+u
			r := commit(uint64(no)<<8|uint64(n), random.Int64N(5*hour), quota.Slot{Kind: quota.PotWallet, Anchor: 1,
				Parts: []token.Part{part(1, a), part(2, b)}, Charge: a + b + u, Uncovered: u})
			r.Lines = []int64{a + b, u}
			records = append(records, r)
		}
		batches = append(batches, batch(no, records...))
	}
	sum := func(parts ...[]quota.Batch) (spent, claimed, rolled int64) {
		c := quota.Cursor{Lane: lane}
		for _, bs := range parts {
			p := projection.Build(c, 0, bs, pots())
			if again := projection.Build(c, 0, bs, pots()); !reflect.DeepEqual(p, again) {
				t.Fatalf("two projections of the same batches differ")
			}
			for _, s := range p.Spent {
				spent += s.Amount
			}
			for _, x := range p.Claims {
				claimed += x.Amount
			}
			for _, r := range p.Rollups {
				rolled += r.Micros
			}
			c.No = p.To
		}
		return spent, claimed, rolled
	}
	for cut := range batches {
		spent, claimed, rolled := sum(batches[:cut], batches[cut:])
		if spent != covered || claimed != uncovered || rolled != covered+uncovered {
			t.Fatalf("cut at %d: spent %d of %d, claimed %d of %d, rolled up %d", cut, spent, covered, claimed, uncovered, rolled)
		}
	}
}
