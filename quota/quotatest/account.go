package quotatest

import (
	"slices"

	"github.com/purser-io/purser/quota"
)

// Admin operations are not subject to faults: what they race with is.

// CreateAccount adds an account under parent ("" = none).
func (db *DB) CreateAccount(id, parent string) {
	a := &account{Account: quota.Account{ID: id, Parent: parent, Payer: id, Status: quota.AccountActive, Epoch: 1}, chain: []string{id}}
	if parent != "" {
		p := db.accounts[parent]
		a.Payer, a.chain = p.Payer, append(a.chain, p.chain...)
	}
	db.accounts[id] = a
	db.bump(quota.ChangeAccount, id)
}

// change replaces an account by a copy with the next epoch, to be changed at once.
func (db *DB) change(id string) *account {
	a := *db.accounts[id]
	a.Epoch++
	db.accounts[id] = &a
	return &a
}

// Profile reads an account with its chain and budgets.
func (db *DB) Profile(id string) *quota.Profile {
	p := &quota.Profile{Revision: db.revision}
	for _, member := range db.accounts[id].chain {
		a := db.accounts[member]
		p.Chain, p.Budgets = append(p.Chain, a.Account), append(p.Budgets, slices.Clone(a.budgets))
	}
	return p
}

// SetStatus suspends or resumes, and returns the revision that nodes must acknowledge.
func (db *DB) SetStatus(id string, s quota.AccountStatus) int64 {
	db.change(id).Status = s
	return db.bump(quota.ChangeAccount, id)
}

// PutBudget adds a budget or changes its cap.
func (db *DB) PutBudget(b quota.Budget) {
	a := db.change(b.Account)
	a.budgets = slices.DeleteFunc(slices.Clone(a.budgets), func(x quota.Budget) bool { return x.ID == b.ID })
	a.budgets = append(a.budgets, b)
	slices.SortFunc(a.budgets, func(x, y quota.Budget) int { return compare(x.ID, y.ID) })
	db.bump(quota.ChangeAccount, b.Account)
	db.Oracle.capped(&b)
}

func compare(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// CreateGrant adds a grant, paying debt first (R50).
func (db *DB) CreateGrant(g quota.Pot) {
	g.Kind, g.Available = quota.PotWallet, g.Granted
	p := db.addPot(g)
	db.payDebt(p, p.Available)
	db.bump(quota.ChangeAccount, g.Payer)
}

// VoidGrant stops draws from a grant (race 27).
func (db *DB) VoidGrant(payer, id string) {
	p := db.pots[quota.PotRef{Payer: payer, Pot: id}]
	if p == nil || p.Voided {
		return
	}
	if p.End <= db.Now {
		p.Expired += p.Available
	} else {
		p.Refunded += p.Available
	}
	p.Available, p.Voided = 0, true
	db.change(payer)
	db.bump(quota.ChangeAccount, payer)
}

// Collect raises the watermark behind which a closed lane's journal may be forgotten (R16).
func (db *DB) Collect(before int64) {
	for _, l := range db.laneOrder {
		if l.state == quota.LaneClosed && before > l.gcBefore {
			l.gcBefore = before
		}
	}
}

// Debt is what a payer owes.
func (db *DB) Debt(payer string) int64 { return db.debts[payer] }

// Wallet is what a payer's open grants have available at now.
func (db *DB) Wallet(payer string, now int64) (available int64) {
	if db.debts[payer] > 0 {
		return 0
	}
	for _, g := range db.openGrants(payer, now) {
		available += g.Available
	}
	return available
}

// Window is a window's pot, nil before the first draw or claim.
func (db *DB) Window(payer, id string) *quota.Pot {
	return db.pots[quota.PotRef{Payer: payer, Pot: id}]
}

// Grants lists a payer's grants.
func (db *DB) Grants(payer string) (ids []string) {
	for _, p := range db.potOrder {
		if p.Payer == payer && p.Kind == quota.PotWallet {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// LaneOpen reports whether a lane may be written to.
func (db *DB) LaneOpen(id quota.LaneID) bool { return db.lanes[id].state == quota.LaneOpen }

// Spendable reports whether what is free of an allotment may still be asked for anywhere: its
// grant is neither voided nor over.
func (db *DB) Spendable(id quota.LaneID, no quota.AllotmentNo) bool {
	a := db.lanes[id].allotments[no]
	p := db.pots[a.PotRef]
	return !p.Voided && db.Now < p.End
}
