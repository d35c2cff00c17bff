package escrow

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

// books writes a pool as free/held/spent.
func books(p *pool) string {
	var spent int64
	for _, a := range p.allotments {
		spent += a.spent
	}
	return fmt.Sprintf("%d/%d/%d", p.freeAll(), p.heldAll(), spent)
}

func expectBooks(t *testing.T, p *pool, want string) {
	t.Helper()
	if got := books(p); got != want {
		t.Fatalf("free/held/spent is %s, want %s", got, want)
	}
}

// TestSettleIsFreeOnlyWhenDurable: nothing moves to free before Settled (R1).
func TestSettleIsFreeOnlyWhenDurable(t *testing.T) {
	for _, c := range []struct {
		name   string
		charge []int64 // nil = release
		after  string
	}{
		{"release", nil, "80/0/0"},
		{"commit of less", []int64{4}, "76/0/4"},
		{"commit of all", []int64{10}, "70/0/10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 160)
			var live atomic.Int64
			q := r.ask(candidate("f", 1, 10, 10, wallet()))
			q.Counter = &live
			sequence := r.grant(q)
			w := r.out.payer.wallet
			expectBooks(t, w, "70/10/0")
			p := r.settle(sequence, c.charge...)
			expectBooks(t, w, "70/10/0")
			if st, again := r.s.Settle(r.db.Now, p.Record, nil); st != Underway || again != p {
				t.Fatalf("settled again: status %d", st)
			}
			r.durable(p)
			expectBooks(t, w, c.after)
			if live.Load() != 0 || r.s.Holds() != 0 {
				t.Fatalf("%d live, %d holds", live.Load(), r.s.Holds())
			}
			if st, _ := r.s.Settle(r.db.Now, p.Record, nil); st != NotHeld {
				t.Fatalf("settled after the end: status %d", st)
			}
			expectViolation(t, "R2", func() { r.s.Settled(p) })
		})
	}
}

// TestOverCommit: beyond the hold comes from free amounts of the same pot, then it is
// uncovered; each pot of the reservation on its own (R25).
func TestOverCommit(t *testing.T) {
	r := newRig(t, 160)
	b := r.budget("team", "tokens", 0, 1000)
	none := r.budget("team", "plan", 1, 1000)
	k := candidate("f", 1, 10, 10, b, none, wallet())
	k.Want[1], k.Min[1] = 0, 0 // no request is expected, and one happens
	sequence := r.grant(r.ask(k))
	if slot := r.out.Token.Slots[1]; len(slot.Parts) != 0 || slot.PotID != none.Window.ID() {
		t.Fatalf("the slot that holds nothing is %+v", slot)
	}
	w := r.out.payer.wallet
	p := r.settle(sequence, 25, 1, 100)
	expectBooks(t, w, "0/80/0")
	want := []struct{ charge, parts, uncovered int64 }{{25, 25, 0}, {1, 0, 1}, {100, 80, 20}}
	for i, s := range p.Record.Slots {
		var parts int64
		for _, x := range s.Parts {
			parts += x.Amount
		}
		if s.Charge != want[i].charge || parts != want[i].parts || s.Uncovered != want[i].uncovered {
			t.Errorf("slot %d: %+v, want %+v", i, s, want[i])
		}
		if i != 1 && (s.Anchor == 0 || len(s.Parts) != 1) {
			t.Errorf("slot %d: the hold and what was added are not one part: %+v", i, s)
		}
	}
	if s := p.Record.Slots[1]; s.Pot != none.Window.ID() {
		t.Errorf("the uncovered request is charged to pot %q", s.Pot)
	}
	if p.Record.Held != 10 || p.Record.Uncovered() != 20 {
		t.Errorf("held %d, uncovered %d", p.Record.Held, p.Record.Uncovered())
	}
	r.durable(p)
	expectBooks(t, w, "0/0/80")
}

// TestSettledByOthers: the winner's parts are spent, all else is free again, what was added at
// commit too; by the journal's word or by a note (R27).
func TestSettledByOthers(t *testing.T) {
	winner := func(r *rig, sequence uint64, amount int64) quota.Entry {
		e := quota.Entry{EntryKey: quota.EntryKey{Lane: 1, Sequence: sequence}, Kind: quota.Committed}
		if amount > 0 {
			e.Parts = []token.Part{{Allotment: r.out.Token.Slots[0].Parts[0].Allotment, Amount: amount}}
		}
		return e
	}
	for _, c := range []struct {
		won  int64
		want string
	}{{4, "76/0/4"}, {0, "80/0/0"}, {10, "70/0/10"}} {
		r := newRig(t, 160)
		sequence := r.grant(r.ask(candidate("f", 1, 10, 10, wallet())))
		e := winner(r, sequence, c.won)
		p := r.settle(sequence, 30)
		expectBooks(t, r.out.payer.wallet, "50/30/0")
		r.s.Noted(&e) // a settlement under way meets the winner by itself
		expectBooks(t, r.out.payer.wallet, "50/30/0")
		p.Fate = quota.Settlement{Verdict: quota.VerdictSettled, Entry: e}
		r.s.Settled(p)
		expectBooks(t, r.out.payer.wallet, c.want)

		r = newRig(t, 160)
		sequence = r.grant(r.ask(candidate("f", 1, 10, 10, wallet())))
		e = winner(r, sequence, c.won)
		late := e
		late.Phase = quota.PhaseLate
		r.s.Noted(&late)
		expectBooks(t, r.out.payer.wallet, "70/10/0")
		r.s.Noted(&e)
		r.s.Noted(&e)
		expectBooks(t, r.out.payer.wallet, c.want)
		if c.won > 0 && e.Parts[0].Amount != c.won {
			t.Errorf("the note was changed")
		}
	}
}

// TestExpiry: EXPIRED is recorded after the promised time and g (race 8), and only the record
// frees.
func TestExpiry(t *testing.T) {
	r := newRig(t, 160)
	r.grant(r.ask(candidate("f", 1, 10, 10, wallet()))) // for 4 s
	start := r.db.Now
	for r.db.Now = start; r.db.Now < start+4*second+grace; r.db.Now += second / 10 {
		if got := r.s.Tick(r.db.Now); len(got) != 0 {
			t.Fatalf("expired after %d ms", (r.db.Now-start)/1e6)
		}
	}
	var got []*Pending
	for ; len(got) == 0 && r.db.Now < start+2*maxHold; r.db.Now += second / 10 {
		got = r.s.Tick(r.db.Now)
	}
	if len(got) != 1 || got[0].Record.Kind != quota.Expired || got[0].Record.Account != "team" || r.db.Now > start+6*second {
		t.Fatalf("expired %+v after %d ms", got, (r.db.Now-start)/1e6)
	}
	expectBooks(t, r.out.payer.wallet, "70/10/0")
	r.durable(got[0])
	expectBooks(t, r.out.payer.wallet, "80/0/0")
	if again := r.s.Tick(r.db.Now + maxHold); len(again) != 0 {
		t.Fatalf("expired twice")
	}
}

func TestWheel(t *testing.T) {
	w := newWheel[numbers](0, 510)
	add(&w, 100, 1)
	add(&w, 100_000, 2) // beyond the span: comes up early, to be put back
	if got := collect(&w, 99, nil); len(got) != 0 {
		t.Fatalf("due at 99: %v", got)
	}
	if got := collect(&w, 101, nil); fmt.Sprint(got) != "[1]" {
		t.Fatalf("due at 101: %v", got)
	}
	add(&w, 5, 3) // overdue
	if got := collect(&w, 102, nil); fmt.Sprint(got) != "[3]" {
		t.Fatalf("due at 102: %v", got)
	}
	add(&w, 700, 4)
	if got := collect(&w, 1_000_000, nil); len(got) != 2 { // a clock jump
		t.Fatalf("due after a jump: %v", got)
	}
	add(&w, 1_000_100, 5)
	if got := collect(&w, 1_000_099, nil); len(got) != 0 {
		t.Fatalf("due too early: %v", got)
	}
	if got := collect(&w, 1_000_101, nil); fmt.Sprint(got) != "[5]" {
		t.Fatalf("due after the jump: %v", got)
	}
}
