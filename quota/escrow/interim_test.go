package escrow

import (
	"reflect"
	"testing"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/amount"
)

// report notes usage of a reservation: tokens at 2 micros each, and other meters for nothing.
func (r *rig) report(sequence uint64, tokens int64, others ...quota.Quantity) *Interim {
	r.t.Helper()
	rec := quota.Record{EntryKey: quota.EntryKey{Lane: 1, Sequence: sequence}, Nonce: r.s.holds[sequence].nonce, Kind: quota.Committed,
		Usage: append([]quota.Quantity{{Meter: "tokens", Quantity: tokens}}, others...), Digest: 7,
		Lines: append([]int64{2 * tokens}, make([]int64, len(others))...)}
	st, _, x := r.s.Interim(rec, nil)
	if st != Enqueue {
		r.t.Fatalf("interim: status %d", st)
	}
	return x
}

// TestInterimMovesNothing: usage is noted, of each meter the most, and no amount moves (R23).
func TestInterimMovesNothing(t *testing.T) {
	r := newRig(t, 160)
	sequence := r.grant(r.ask(candidate("f", 2, 10, 10, wallet())))
	w := r.out.payer.wallet
	before := books(w)
	first := r.report(sequence, 4, quota.Quantity{Meter: "images", Quantity: 9})
	later := r.report(sequence, 12)
	behind := r.report(sequence, 11, quota.Quantity{Meter: "images", Quantity: 2})
	if first.Number != 1 || later.Number != 2 || behind.Number != 2 || first.Record.Charged() != 8 {
		t.Errorf("numbers %d, %d, %d, the first of %d micros", first.Number, later.Number, behind.Number, first.Record.Charged())
	}
	rec := behind.Record
	if want := []quota.Quantity{{Meter: "tokens", Quantity: 12}, {Meter: "images", Quantity: 9}}; !reflect.DeepEqual(rec.Usage, want) {
		t.Errorf("usage %v, want %v", rec.Usage, want)
	}
	if s := rec.Slots[0]; rec.Kind != quota.Expired || rec.Digest != 0 || s.Charge != 24 || s.Uncovered != 4 || rec.Held != 20 {
		t.Errorf("who closes the lane would charge %+v", rec)
	}
	if after := books(w); after != before {
		t.Errorf("free/held/spent went from %s to %s", before, after)
	}
}

// TestInterimIsChargedByExpiry: the owner charges what it took in, to the hold, then to free
// amounts.
func TestInterimIsChargedByExpiry(t *testing.T) {
	r := newRig(t, 160)
	sequence, other := r.grant(r.ask(candidate("f", 2, 10, 10, wallet()))), r.grant(r.ask(candidate("f", 2, 10, 10, wallet())))
	r.report(sequence, 12)
	r.db.Now += 6 * second
	due := r.s.Tick(r.db.Now)
	if len(due) != 2 {
		t.Fatalf("%d expired", len(due))
	}
	for _, p := range due {
		want := int64(0)
		if p.Record.Sequence == sequence {
			want = 24
		}
		rec := &p.Record
		if rec.Kind != quota.Expired || rec.Charged() != want || rec.Slots[0].Charge != want || rec.Slots[0].Uncovered != 0 || rec.Held != 20 ||
			rec.Used() != (want > 0) || rec.SettledAt != r.db.Now {
			t.Errorf("expiry of %d, the other is %d: %+v", rec.Sequence, other, rec)
		}
		r.durable(p)
	}
	expectBooks(t, r.out.payer.wallet, "136/0/24")
}

// TestInterimBehindTheEnd: what is being settled, or is not held, takes none.
func TestInterimBehindTheEnd(t *testing.T) {
	r := newRig(t, 160)
	sequence := r.grant(r.ask(candidate("f", 2, 10, 10, wallet())))
	r.report(sequence, 5)
	p := r.settle(sequence, 8)
	rec := quota.Record{EntryKey: p.Record.EntryKey, Nonce: p.Record.Nonce}
	if st, ending, x := r.s.Interim(rec, nil); st != Underway || ending != quota.Committed || x != nil {
		t.Errorf("while it is settled: status %d, ending %v", st, ending)
	}
	r.durable(p)
	if st, _, x := r.s.Interim(rec, nil); st != NotHeld || x != nil {
		t.Errorf("afterwards: status %d", st)
	}
	again := r.grant(r.ask(candidate("f", 2, 10, 10, wallet())))
	if n := len(r.s.interims); n != 0 {
		t.Errorf("usage of %d holds that ended is remembered", n)
	}
	rec.Sequence = again
	if st, _, _ := r.s.Interim(rec, nil); st != NotHeld {
		t.Errorf("with another nonce: status %d", st)
	}
}

// TestLessThanWasNoted: a settlement below is charged as it says, and flagged.
func TestLessThanWasNoted(t *testing.T) {
	for _, c := range []struct {
		name   string
		noted  int64
		charge []int64
		below  bool
	}{
		{"nothing noted", 0, []int64{8}, false},
		{"less", 5, []int64{8}, true},
		{"as much", 4, []int64{8}, false},
		{"released", 4, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 160)
			sequence := r.grant(r.ask(candidate("f", 2, 10, 10, wallet())))
			if c.noted > 0 {
				r.report(sequence, c.noted)
			}
			p := r.settle(sequence, c.charge...)
			if r.s.Below(p) != c.below || len(c.charge) > 0 && p.Record.Charged() != c.charge[0] {
				t.Errorf("below is %v, charged %d", r.s.Below(p), p.Record.Charged())
			}
		})
	}
}

// TestReportsThatContradict: together they must not cost more than an amount can hold.
func TestReportsThatContradict(t *testing.T) {
	of := func(meter string) *quota.Record {
		return &quota.Record{Usage: []quota.Quantity{{Meter: meter, Quantity: 1}}, Lines: []int64{amount.Max}}
	}
	usage, lines := highest(of("a"), of("b"))
	if len(usage) != 1 || usage[0].Meter != "a" || len(lines) != 1 {
		t.Errorf("usage %v, lines %v, want the earlier", usage, lines)
	}
}

func TestInterimsQueue(t *testing.T) {
	q := NewInterims(3, 2)
	var all []*Interim
	for range 3 {
		x := &Interim{}
		all = append(all, x)
		if q.Full() || !q.Push(x) {
			t.Fatalf("a queue of %d is full", len(all)-1)
		}
	}
	if !q.Full() {
		t.Errorf("a queue at its bound is not full")
	}
	if first := q.Batch(); len(first) != 2 || first[0] != all[0] || !reflect.DeepEqual(q.Batch(), first) {
		t.Errorf("what is under way is not sent again")
	}
	if done := q.Done(); len(done) != 2 || done[1] != all[1] {
		t.Errorf("done: %v", done)
	}
	if next := q.Batch(); len(next) != 1 || next[0] != all[2] {
		t.Errorf("next: %v", next)
	}
	q.Push(all[0])
	if rest := q.Fenced(); len(rest) != 2 || rest[0] != all[2] || q.Push(all[0]) || len(q.Batch()) != 0 {
		t.Errorf("a fenced queue handed back %v", rest)
	}
}
