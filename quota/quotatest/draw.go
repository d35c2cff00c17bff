package quotatest

import (
	"context"
	"slices"

	"github.com/purser-io/purser/quota"
)

// Draw implements quota.DrawStore.
func (db *DB) Draw(_ context.Context, draws []quota.Draw) (results []quota.DrawResult, err error) {
	draws = slices.Clone(draws)
	for i := range draws {
		draws[i].Epochs, draws[i].Wants = slices.Clone(draws[i].Epochs), slices.Clone(draws[i].Wants)
	}
	err = db.do(OpDraw, func() error {
		results = make([]quota.DrawResult, len(draws))
		for i := range draws {
			results[i].Drawn, results[i].Err = db.draw(&draws[i])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

func (db *DB) draw(d *quota.Draw) ([]quota.Drawn, error) {
	l, inc := db.lanes[d.Lane], db.incarnations[d.Incarnation]
	if l == nil || inc == nil || l.owner != inc || inc.state != quota.IncarnationLive || inc.issueUntil <= db.Now || l.state != quota.LaneOpen {
		return nil, fenced("may not issue")
	}
	landed := db.landed(l, d)
	if db.Break.EpochFirst || !landed {
		if err := db.checkEpochs(d.Epochs); err != nil {
			return nil, err
		}
	}
	for _, g := range db.openGrants(d.Payer, d.Now) {
		db.payDebt(g, g.Available)
	}
	drawn := make([]quota.Drawn, len(d.Wants))
	for i := range d.Wants {
		w := &d.Wants[i]
		for no := w.First; no < w.First+w.Numbers(); no++ {
			if a := l.allotments[no]; a != nil && !a.Closed {
				drawn[i].Allotments = append(drawn[i].Allotments, quota.Allotment{Lane: d.Lane, Number: no, Pot: a.Pot,
					Amount: a.Amount, NotAfter: a.notAfter})
			}
		}
		if landed {
			continue
		}
		drawn[i].Allotments = db.serve(l, d, w)
		if len(drawn[i].Allotments) == 0 && !db.Break.NoTrace {
			db.trace(l, d.Payer, w)
		}
	}
	for i := range d.Wants {
		db.report(d, &d.Wants[i], &drawn[i])
	}
	return drawn, nil
}

// landed reports that an earlier sending of the draw made allotments (R11).
func (db *DB) landed(l *lane, d *quota.Draw) bool {
	for i := range d.Wants {
		w := &d.Wants[i]
		for no := w.First; no < w.First+w.Numbers(); no++ {
			if l.allotments[no] != nil {
				return true
			}
		}
	}
	return false
}

// trace leaves a closed allotment of nothing for a want that got nothing. Without it a draw
// that was answered so, and lands once more as a zombie, would find no sign of itself and take
// what nobody will ever know of.
func (db *DB) trace(l *lane, payer string, w *quota.Want) {
	a := &allotment{}
	a.AllotmentRef = quota.AllotmentRef{Lane: l.id, Number: w.First}
	a.PotRef = quota.PotRef{Payer: payer}
	a.Closed = true
	set(&l.allotments, w.First, a)
}

func (db *DB) checkEpochs(seen []quota.AccountEpoch) error {
	for _, s := range seen {
		a := db.accounts[s.Account]
		if a == nil || a.Epoch != s.Epoch || a.Status != quota.AccountActive {
			return &quota.Error{Reason: quota.ReasonPolicyChanged, NotApplied: true}
		}
	}
	return nil
}

// serve makes the allotments of one want.
func (db *DB) serve(l *lane, d *quota.Draw, want *quota.Want) (out []quota.Allotment) {
	live, w := d.LiveNodes, *want
	if db.Break.NoHalf {
		w.Floor = w.Amount
	}
	take := func(no quota.AllotmentNo, p *quota.Pot, amount int64) {
		p.Escrowed += amount
		a := &allotment{notAfter: p.End}
		a.AllotmentRef = quota.AllotmentRef{Lane: l.id, Number: no}
		a.PotRef = quota.PotRef{Payer: p.Payer, Pot: p.ID}
		a.Amount = amount
		set(&l.allotments, no, a)
		l.numbers = append(l.numbers, no)
		out = append(out, quota.Allotment{Lane: l.id, Number: no, Pot: p.ID, Amount: amount, NotAfter: p.End})
	}
	if w.Kind == quota.PotWallet {
		if db.debts[d.Payer] > 0 { // R50
			return nil
		}
		for n, t := range quota.TakeFromGrants(db.openGrants(d.Payer, d.Now), &w, live) {
			t.Pot.Available -= t.Amount
			take(w.First+quota.AllotmentNo(n), t.Pot, t.Amount)
		}
		return out
	}
	if w.Window.End <= d.Now {
		return nil
	}
	db.Oracle.drew(&w.Window)
	p := db.windowPot(d.Payer, &w.Window)
	if amount := quota.TakeFromWindow(p.Taken(), &w, live); amount > 0 {
		take(w.First, p, amount)
	}
	return out
}

func (db *DB) windowPot(payer string, w *quota.WindowPot) *quota.Pot {
	p := db.pots[quota.PotRef{Payer: payer, Pot: w.ID()}]
	if p == nil {
		p = db.addPot(quota.Pot{Payer: payer, ID: w.ID(), Kind: w.Kind, Account: w.Account, Limit: w.Limit, Selector: w.Selector, Start: w.Start})
	}
	p.Unit, p.End = w.Unit, w.End // a claim may have made it without them
	return p
}

func (db *DB) report(d *quota.Draw, w *quota.Want, out *quota.Drawn) {
	if w.Kind == quota.PotWallet {
		out.Debt = db.debts[d.Payer]
		for _, g := range db.openGrants(d.Payer, d.Now) {
			out.Available += g.Available
			out.Escrowed += g.Escrowed
		}
		return
	}
	if p := db.pots[quota.PotRef{Payer: d.Payer, Pot: w.Window.ID()}]; p != nil {
		out.Escrowed, out.Taken = p.Escrowed, p.Taken()
		out.Available = max(w.Window.Cap-p.Taken(), 0)
	}
}

// Return implements quota.DrawStore.
func (db *DB) Return(_ context.Context, id quota.LaneID, shrinks []quota.Shrink) error {
	shrinks = slices.Clone(shrinks)
	return db.do(OpReturn, func() error {
		l := db.lanes[id]
		if l == nil || l.state != quota.LaneOpen {
			return fenced("the lane is not open")
		}
		for i := range shrinks {
			if err := db.checkShrink(l, &shrinks[i]); err != nil {
				return err
			}
		}
		for i := range shrinks {
			db.shrink(l, &shrinks[i])
		}
		return nil
	})
}

// Shrinks is the number of shrinks applied to an allotment, -1 if there is no such allotment.
func (db *DB) Shrinks(id quota.LaneID, no quota.AllotmentNo) int64 {
	if a := db.lanes[id].allotments[no]; a != nil {
		return a.shrinks
	}
	return -1
}

func (db *DB) checkShrink(l *lane, s *quota.Shrink) error {
	a := l.allotments[s.Number]
	switch {
	case a == nil:
		return db.violated("R19: a shrink of allotment %d, which does not exist", s.Number)
	case s.Sequence <= a.shrinks:
		return nil
	case s.Sequence != a.shrinks+1 || a.Closed || s.Amount < 0 || s.Amount > a.Amount:
		return db.violated("R19: shrink %d by %d does not fit allotment %d", s.Sequence, s.Amount, s.Number)
	}
	return nil
}

func (db *DB) shrink(l *lane, s *quota.Shrink) {
	a := l.allotments[s.Number]
	if s.Sequence <= a.shrinks && !db.Break.NoShrinkSequence {
		return
	}
	p := db.pots[a.PotRef]
	a.shrinks = s.Sequence
	a.Amount -= s.Amount
	db.comeHome(p, s.Amount, db.Now)
	if s.Close && !a.Closed { // R46
		db.closeAllotment(a, a.Amount)
	}
}

// closeAllotment moves what was spent, of an allotment whose rest is home already.
func (db *DB) closeAllotment(a *allotment, spent int64) {
	p := db.pots[a.PotRef]
	p.Escrowed -= spent
	p.Spent += spent
	a.Spent, a.Closed = spent, true
}
