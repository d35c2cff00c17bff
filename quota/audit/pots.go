package audit

import (
	"cmp"
	"maps"
	"slices"

	"github.com/purser-io/purser/quota"
)

// readAllotments is I2, and gathers what pots must have out and spent.
func (a *auditor) readAllotments() error {
	err := a.r.Allotments(func(row quota.AllotmentRow) error {
		a.report.Allotments++
		a.checkAllotment(&row)
		if row.Pot == "" && row.Closed && row.Amount == 0 {
			return nil // the trace of a draw that was sent again and drew nothing: of no pot
		}
		name := allotmentName(row.AllotmentRef)
		pot := a.pot(row.PotRef)
		if row.Closed {
			a.add(&pot.closed, row.Spent, name)
		} else {
			a.add(&pot.open, row.Amount, name)
		}
		if sum := a.spent[row.AllotmentRef]; sum != nil {
			a.add(&pot.projected, sum.projected, name)
			delete(a.spent, row.AllotmentRef)
		}
		a.add(&pot.uncovered, a.anchors[row.AllotmentRef], name)
		delete(a.anchors, row.AllotmentRef)
		return nil
	})
	if err != nil {
		return err
	}
	for _, ref := range sortedRefs(a.spent) {
		a.find("I2", allotmentName(ref), "entries charge %d to it, but it does not exist", a.spent[ref].all)
	}
	for _, ref := range sortedRefs(a.anchors) {
		a.find("I2", allotmentName(ref), "%d uncovered are to be debited to its pot, but it does not exist", a.anchors[ref])
	}
	return nil
}

func (a *auditor) checkAllotment(row *quota.AllotmentRow) {
	name := allotmentName(row.AllotmentRef)
	charged := int64(0)
	if sum := a.spent[row.AllotmentRef]; sum != nil {
		charged = sum.all
	}
	l := a.lanes[row.Lane]
	switch {
	case l == nil:
		a.find("I1", name, "its lane does not exist")
	case l.Guest:
		a.find("R27", name, "a guest lane has no allotments")
	case l.State == quota.LaneClosed && !row.Closed:
		a.find("I15", name, "it is open though its lane is closed: nobody will return its %d", row.Amount)
	}
	if row.Amount < 0 || row.Spent < 0 {
		a.find("I2", name, "amount %d and spent %d may not be negative", row.Amount, row.Spent)
	}
	if charged > row.Amount {
		a.find("I2", name, "entries charge %d to it, more than its amount %d", charged, row.Amount)
	}
	if row.Closed && row.Spent != charged {
		a.find("I2", name, "it was closed with %d spent, but its entries charge %d", row.Spent, charged)
	}
	if a.o.Quiescent && !row.Closed {
		a.find("I15", name, "it is still open with %d of %s", row.Amount, potName(row.PotRef))
	}
}

// readPots is I1.
func (a *auditor) readPots() error {
	err := a.r.Pots(func(p quota.Pot) error {
		a.report.Pots++
		ref := quota.PotRef{Payer: p.Payer, Pot: p.ID}
		sums := a.pot(ref)
		sums.exists, sums.kind, sums.taken = true, p.Kind, p.Direct
		if p.Kind == quota.PotWallet {
			a.checkGrant(&p)
		} else {
			a.checkWindow(&p, sums)
		}
		name := potName(ref)
		if p.Escrowed != sums.open {
			a.find("I1", name, "it has %d escrowed, its open allotments have %d", p.Escrowed, sums.open)
		}
		if p.Spent != sums.closed {
			a.find("I1", name, "it has %d spent, its closed allotments have %d", p.Spent, sums.closed)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, ref := range a.sortedPots() {
		if sums := a.pots[ref]; !sums.exists {
			a.find("I1", potName(ref), "it does not exist, but %d of it are out, %d spent and %d uncovered", sums.open, sums.closed, sums.uncovered)
		}
	}
	return nil
}

func (a *auditor) checkGrant(p *quota.Pot) {
	name := potName(quota.PotRef{Payer: p.Payer, Pot: p.ID})
	sum := int64(0)
	for _, x := range [...]int64{p.Available, p.Escrowed, p.Spent, p.Expired, p.Refunded, p.Direct} {
		a.add(&sum, x, name)
		if x < 0 {
			a.find("I1", name, "a figure is negative: available %d, escrowed %d, spent %d, expired %d, refunded %d, direct %d",
				p.Available, p.Escrowed, p.Spent, p.Expired, p.Refunded, p.Direct)
			break
		}
	}
	if sum != p.Granted || p.Granted <= 0 {
		a.find("I1", name, "granted %d, but available %d + escrowed %d + spent %d + expired %d + refunded %d + direct %d = %d",
			p.Granted, p.Available, p.Escrowed, p.Spent, p.Expired, p.Refunded, p.Direct, sum)
	}
	if p.Voided && p.Available != 0 {
		a.find("I1", name, "it is voided and yet has %d available", p.Available)
	}
	a.add(&a.report.Granted, p.Granted, "all grants")
	a.add(&a.report.Escrowed, p.Escrowed, "all grants")
	a.add(&a.wallet(p.Payer).direct, p.Direct, "wallet of "+p.Payer)
}

// checkWindow: a window pot keeps what was taken and nothing else (R33), and passes its cap by
// nothing but the uncovered amounts that were projected to it (I12).
func (a *auditor) checkWindow(p *quota.Pot, sums *potSums) {
	name := potName(quota.PotRef{Payer: p.Payer, Pot: p.ID})
	if p.Granted != 0 || p.Available != 0 || p.Expired != 0 || p.Refunded != 0 {
		a.find("I1", name, "a window keeps granted %d, available %d, expired %d, refunded %d", p.Granted, p.Available, p.Expired, p.Refunded)
	}
	if p.Escrowed < 0 || p.Spent < 0 || p.Direct < 0 {
		a.find("I1", name, "a figure is negative: escrowed %d, spent %d, direct %d", p.Escrowed, p.Spent, p.Direct)
	}
	if p.Direct != sums.uncovered {
		a.find("I12", name, "%d were debited to it directly, but %d uncovered were projected", p.Direct, sums.uncovered)
	}
}

// readDebts checks that what no allotment covered was taken from a payer's grants or became
// debt, exactly once (R25); paying debt turns it into a direct debit (R50).
func (a *auditor) readDebts() error {
	err := a.r.Debts(func(payer string, debt int64) error {
		if debt < 0 {
			a.find("I1", "debt of "+payer, "it is %d", debt)
		}
		a.wallet(payer).debt = debt
		a.add(&a.report.Debt, debt, "all debts")
		return nil
	})
	if err != nil {
		return err
	}
	for _, payer := range slices.Sorted(maps.Keys(a.wallets)) {
		w := a.wallets[payer]
		owed := w.direct
		a.add(&owed, w.debt, "wallet of "+payer)
		if owed != w.uncovered {
			a.find("I1", "wallet of "+payer, "%d direct and %d debt make %d, but %d uncovered were projected", w.direct, w.debt, owed, w.uncovered)
		}
	}
	return nil
}

// readSpent compares the figures that people see with the parts projected. Debited directly
// may be any part of a grant's direct: the rest paid debt that an earlier projection made.
func (a *auditor) readSpent() error {
	err := a.r.Spent(func(row quota.SpentRow) error {
		a.pot(row.PotRef).spentRow = row.Amount
		return nil
	})
	if err != nil {
		return err
	}
	for _, ref := range a.sortedPots() {
		p := a.pots[ref]
		limit := p.projected
		a.add(&limit, p.taken, potName(ref))
		// All that a window was debited is uncovered usage, and shown.
		least := p.projected
		if p.kind != quota.PotWallet {
			least = limit
		}
		if p.spentRow < least || p.spentRow > limit {
			a.find("I5", potName(ref), "%d are shown as spent; %d were projected and %d debited directly", p.spentRow, p.projected, p.taken)
		}
		if a.o.Quiescent && p.projected != p.closed {
			a.find("I15", potName(ref), "%d are spent, but %d were projected", p.closed, p.projected)
		}
	}
	return nil
}

func (a *auditor) sortedPots() []quota.PotRef {
	return slices.SortedFunc(maps.Keys(a.pots), func(x, y quota.PotRef) int {
		return cmp.Or(cmp.Compare(x.Payer, y.Payer), cmp.Compare(x.Pot, y.Pot))
	})
}

func sortedRefs[V any](m map[quota.AllotmentRef]V) []quota.AllotmentRef {
	return slices.SortedFunc(maps.Keys(m), func(x, y quota.AllotmentRef) int {
		return cmp.Or(cmp.Compare(x.Lane, y.Lane), cmp.Compare(x.Number, y.Number))
	})
}
