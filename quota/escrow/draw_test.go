package escrow

import (
	"fmt"
	"testing"

	"github.com/purser-io/purser/quota"
)

// TestWindows: nothing is issued from a window that ended; what is held stays committable;
// the rest goes home (R34, R13).
func TestWindows(t *testing.T) {
	r := newRig(t, 1000)
	ask := func() *Request {
		q := r.ask(candidate("f", 1, 10, 10, r.budget("team", "tokens", 0, 15), wallet()))
		q.Epochs = r.db.Profile("team").Epochs()
		return q
	}
	first := r.grant(ask())
	old := r.out.payer.pools[1]
	if st := r.reserve(ask()); st != Denied || r.out.Denial.Reason != quota.DeniedBudget || !r.out.Denial.Transient {
		t.Fatalf("second of 10 in a window of 15: status %d, %+v", st, r.out.Denial)
	}
	r.db.Now += windowNs
	r.grant(ask())
	if now := r.out.payer.pools[2]; now == old || now.heldAll() != 10 {
		t.Fatalf("the next window's pool holds %d", now.heldAll())
	}
	r.durable(r.settle(first, 10, 10))
	expectBooks(t, old, "5/0/10")
	r.giveBack(false)
	if len(old.allotments) != 0 {
		t.Fatalf("the ended window still has %s", books(old))
	}
	if p := r.db.Window("org", old.window.ID()); p.Escrowed != 0 || p.Spent != 10 {
		t.Fatalf("the ended window's pot: %+v", p)
	}
}

// TestReturns: what goes home when, and what stays.
func TestReturns(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *rig, sequence uint64)
		all  bool
		want string // amount and close of each shrink
	}{
		{"in use", func(*rig, uint64) {}, false, "[]"},
		{"used up (R46)", func(r *rig, n uint64) { r.durable(r.settle(n, 80)) }, false, "[0 true]"},
		{"idle", func(r *rig, n uint64) { r.durable(r.settle(n, 4)); r.db.Now += 6 * second }, false, "[76 true]"},
		{"idle but for a hold", func(r *rig, _ uint64) { r.db.Now += 6 * second }, false, "[70 false]"},
		{"all (R49)", func(*rig, uint64) {}, true, "[70 false]"},
		{"waiting for its record", func(r *rig, n uint64) { r.settle(n, 4) }, true, "[70 false]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 160)
			c.do(r, r.grant(r.ask(candidate("f", 1, 10, 10, wallet()))))
			got := []string{}
			for _, s := range r.giveBack(c.all) {
				got = append(got, fmt.Sprint(s.Amount, s.Close))
			}
			if fmt.Sprint(got) != c.want {
				t.Fatalf("returned %v, want %s", got, c.want)
			}
			if bad := r.db.Oracle.Check(); bad != nil && c.name != "used up (R46)" && c.name != "idle" {
				t.Fatalf("%v", bad) // those two settle without a journal
			}
		})
	}
}

// TestReturnSurplus: far more than this node's share goes home while the pool is in use.
func TestReturnSurplus(t *testing.T) {
	r := newRig(t, 1000)
	r.grant(r.ask(candidate("f", 1, 50, 50, wallet())))
	r.durable(r.settle(r.out.Token.Sequence))
	w := r.out.payer.wallet
	had := w.freeAll()
	if got := r.giveBack(false); len(got) != 0 {
		t.Fatalf("returned %+v of %d", got, had)
	}
	w.size, w.mean, w.peak = 1, 1, 1 // requests have become small,
	w.seen.available = 0             // the pot has run dry,
	r.s.SetLiveNodes(2)              // and another node wants its share
	if got := r.giveBack(false); len(got) != 1 || got[0].Amount != had-had/4 || got[0].Close {
		t.Fatalf("returned %+v of %d", got, had)
	}
}

// TestReturnInFlight: an allotment is not shrunk again, nor used, before the first shrink is
// known to be durable (R19).
func TestReturnInFlight(t *testing.T) {
	r := newRig(t, 160)
	sequence := r.grant(r.ask(candidate("f", 1, 10, 10, wallet())))
	first := r.s.BeginReturn(r.db.Now, true, 100)
	r.durable(r.settle(sequence))
	if again := r.s.BeginReturn(r.db.Now, true, 100); len(again) != 0 {
		t.Fatalf("shrunk again: %+v", again)
	}
	r.s.EndReturn(first)
	last := r.s.BeginReturn(r.db.Now, true, 100)
	if len(last) != 1 || last[0].Sequence != 2 || last[0].Amount != 10 || !last[0].Close {
		t.Fatalf("the rest: %+v", last)
	}
	r.s.EndReturn(last)
	if r.s.Stats().Allotments != 0 {
		t.Fatalf("the closed allotment is kept")
	}
}

// TestDrawChecksTheCapsItUses: a pool of an account whose epoch the draw does not check is
// left for a draw that does, for its cap may have been cut (R12, I12).
func TestDrawChecksTheCapsItUses(t *testing.T) {
	r := newRig(t, 1000)
	team := r.ask(candidate("f", 1, 10, 10, r.budget("team", "tokens", 0, 100), wallet()))
	team.Epochs = r.db.Profile("team").Epochs()
	r.grant(team)
	p := r.out.payer
	p.pools[1].want = 5 // asked ahead, while another draw was under way
	r.budget("team", "tokens", 0, 20)
	org := r.ask(candidate("f", 1, 500, 500, wallet()))
	org.Account, org.Epochs = "org", r.db.Profile("org").Epochs()
	if st := r.s.Reserve(r.db.Now, org, &r.out); st != Short {
		t.Fatalf("status %d", st)
	}
	d := r.s.BeginDraw(r.db.Now, rigID, &r.out)
	if len(d.Wants) != 1 || d.Wants[0].Kind != quota.PotWallet {
		t.Fatalf("the draw wants %+v", d.Wants)
	}
	r.draw(d)
	if bad := r.db.Oracle.Check(); bad != nil {
		t.Fatalf("%v", bad)
	}
}

// TestDraws: a draw's answer is taken in once, ahead of need, and never while one is under way.
func TestDraws(t *testing.T) {
	r := newRig(t, 10_000)
	q := r.ask(candidate("f", 1, 100, 100, wallet()))
	if st := r.s.Reserve(r.db.Now, q, &r.out); st != Short || r.s.Drawing("org") {
		t.Fatalf("status %d", st)
	}
	d := r.s.BeginDraw(r.db.Now, rigID, &r.out)
	if !r.s.Drawing("org") || r.s.BeginAhead(r.db.Now, rigID) != nil {
		t.Fatalf("the draw is not under way")
	}
	r.s.FailDraw(d)
	if r.s.Drawing("org") {
		t.Fatalf("the failed draw is under way")
	}
	r.grant(q)
	w := r.out.payer.wallet
	for n := 0; w.freeAll() >= 100; n++ {
		if n > 50 {
			t.Fatalf("nothing was drawn ahead of need, with %d of %d free", w.freeAll(), w.low)
		}
		r.grant(q)
		if d := r.s.BeginAhead(r.db.Now, rigID); d != nil {
			had := w.freeAll()
			r.draw(d)
			if w.freeAll() <= had {
				t.Fatalf("the draw ahead brought nothing")
			}
			return
		}
	}
	t.Fatalf("nothing was drawn ahead of need")
}

// TestDropEmpty: pools and payers that hold nothing are forgotten, others are not.
func TestDropEmpty(t *testing.T) {
	r := newRig(t, 1000)
	q := r.ask(candidate("f", 1, 10, 10, r.budget("team", "tokens", 0, 100), wallet()))
	q.Epochs = r.db.Profile("team").Epochs()
	r.durable(r.settle(r.grant(q), 10, 10))
	wait := func() {
		r.db.Now += 60 * second
		r.s.Tick(r.db.Now)
	}
	wait()
	if st := r.s.Stats(); st.Pools != 2 || st.Allotments != 2 {
		t.Fatalf("with allotments: %+v", st)
	}
	r.giveBack(true)
	wait()
	wait()
	if st := r.s.Stats(); st.Pools != 0 || len(r.s.payers) != 0 {
		t.Fatalf("without: %+v, %d payers", st, len(r.s.payers))
	}
	q = r.ask(candidate("f", 1, 10, 10, wallet()))
	r.grant(q)
}
