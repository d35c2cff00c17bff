package relational

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/purser-io/purser/quota"
)

const (
	selectPot = `SELECT payer_id, pot_id, kind, unit, granted, available, escrowed, spent, expired, refunded, direct,
       start_time, end_time, account_id, limit_id, selector, grant_kind, priority, cost_basis, note, voided, create_time
FROM pots WHERE payer_id = $1 AND pot_id = $2`
	// The condition in brackets is that of the index pots_grants: a payer's window pots, which
	// may be a million, are not looked at.
	selectGrants = `SELECT payer_id, pot_id, kind, unit, granted, available, escrowed, spent, expired, refunded, direct,
       start_time, end_time, account_id, limit_id, selector, grant_kind, priority, cost_basis, note, voided, create_time
FROM pots WHERE payer_id = $1 AND kind = 1 AND (available > 0 OR escrowed > 0)
  AND unit = '' AND voided = 0 AND start_time <= $2 AND end_time > $2 ORDER BY pot_id`
	insertPot = `INSERT INTO pots (payer_id, pot_id, kind, unit, granted, available, escrowed, spent, expired, refunded, direct,
       start_time, end_time, account_id, limit_id, selector, grant_kind, priority, cost_basis, note, voided, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)`
	insertPotOnce = `INSERT INTO pots (payer_id, pot_id, kind, unit, granted, available, escrowed, spent, expired, refunded, direct,
       start_time, end_time, account_id, limit_id, selector, grant_kind, priority, cost_basis, note, voided, create_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
ON CONFLICT (payer_id, pot_id) DO NOTHING`
	// By key alone and with arithmetic: a predicate beside the key costs CockroachDB its row
	// lock (design §6).
	updatePot = `UPDATE pots SET available = available + $3, escrowed = escrowed + $4, spent = spent + $5,
       expired = expired + $6, refunded = refunded + $7, direct = direct + $8
WHERE payer_id = $1 AND pot_id = $2`
	// A window pot made by a claim, before any draw, has neither unit nor end.
	completeWindow = `UPDATE pots SET unit = $3, end_time = $4 WHERE payer_id = $1 AND pot_id = $2`
)

// potBook is the pots of one transaction: read once each, changed in memory, and written
// back as differences, in id order.
type potBook struct {
	tx    Tx
	pots  map[quota.PotRef]*quota.Pot
	first map[quota.PotRef]quota.Pot // as read
	clear map[string]bool            // payers known to owe nothing
}

func newPotBook(tx Tx) *potBook {
	return &potBook{tx: tx, pots: make(map[quota.PotRef]*quota.Pot), first: make(map[quota.PotRef]quota.Pot),
		clear: make(map[string]bool)}
}

// find reads and locks a pot; nil if there is none.
func (b *potBook) find(ctx context.Context, ref quota.PotRef) (*quota.Pot, error) {
	if p := b.pots[ref]; p != nil {
		return p, nil
	}
	var pot *quota.Pot
	err := each(ctx, b.tx, selectPot+b.tx.ForUpdate(), []any{ref.Payer, ref.Pot}, func(rows Rows) error {
		p, err := scanPot(rows)
		pot = &p
		return err
	})
	if err != nil || pot == nil {
		return nil, err
	}
	return b.hold(*pot), nil
}

// load is find for pots that have to be there, in id order so that no two transactions wait
// for each other.
func (b *potBook) load(ctx context.Context, refs []quota.PotRef) error {
	refs = slices.Clone(refs)
	slices.SortFunc(refs, compareRefs)
	for _, ref := range slices.Compact(refs) {
		p, err := b.find(ctx, ref)
		if err != nil {
			return err
		}
		if p == nil {
			return violated("pot %q of payer %q is missing", ref.Pot, ref.Payer)
		}
	}
	return nil
}

// grants reads and locks the open grants of a payer, in id order.
func (b *potBook) grants(ctx context.Context, payer string, now int64) ([]*quota.Pot, error) {
	var pots []*quota.Pot
	err := each(ctx, b.tx, selectGrants+b.tx.ForUpdate(), []any{payer, now}, func(rows Rows) error {
		p, err := scanPot(rows)
		if err == nil {
			pots = append(pots, b.hold(p))
		}
		return err
	})
	return pots, err
}

// held is a pot that was read or made before; nil if there is none.
func (b *potBook) held(ref quota.PotRef) *quota.Pot { return b.pots[ref] }

func (b *potBook) hold(p quota.Pot) *quota.Pot {
	ref := quota.PotRef{Payer: p.Payer, Pot: p.ID}
	if held := b.pots[ref]; held != nil {
		return held
	}
	b.first[ref], b.pots[ref] = p, &p
	return &p
}

// write asserts I1 for what changed and writes it.
func (b *potBook) write(ctx context.Context) error {
	refs := make([]quota.PotRef, 0, len(b.pots))
	for ref := range b.pots {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, compareRefs)
	var rows [][]any
	for _, ref := range refs {
		was, is := b.first[ref], b.pots[ref]
		if was == *is {
			continue
		}
		if err := checkPot(is); err != nil {
			return err
		}
		rows = append(rows, []any{ref.Payer, ref.Pot, is.Available - was.Available, is.Escrowed - was.Escrowed,
			is.Spent - was.Spent, is.Expired - was.Expired, is.Refunded - was.Refunded, is.Direct - was.Direct})
	}
	if len(rows) == 0 {
		return nil
	}
	n, err := b.tx.Bulk(ctx, updatePot, rows)
	if err != nil {
		return fmt.Errorf("update pots: %w", err)
	}
	if n != int64(len(rows)) {
		return violated("update pots: %d of %d rows are there", n, len(rows))
	}
	return nil
}

// checkPot asserts what holds for a pot in every committed state: I1, and no negative part.
func checkPot(p *quota.Pot) error {
	if min(p.Available, p.Escrowed, p.Spent, p.Expired, p.Refunded, p.Direct) < 0 {
		return violated("pot %q of payer %q would have a negative part", p.ID, p.Payer)
	}
	if p.Kind == quota.PotWallet && !p.Balanced() {
		return violated("pot %q of payer %q would not balance (I1)", p.ID, p.Payer)
	}
	return nil
}

func compareRefs(a, b quota.PotRef) int {
	if c := strings.Compare(a.Payer, b.Payer); c != 0 {
		return c
	}
	return strings.Compare(a.Pot, b.Pot)
}

// comeHome gives amount, which is escrowed, back to its pot (R14): of a window it lapses; of
// a grant it goes to refunded if that was voided, to expired if it has ended, else to the
// payer's debt first (R50) and then to available.
func (b *potBook) comeHome(ctx context.Context, p *quota.Pot, amount, now int64) error {
	p.Escrowed -= amount
	switch {
	case p.Kind != quota.PotWallet || amount == 0:
		return nil
	case p.Voided:
		p.Refunded += amount
		return nil
	case p.End <= now:
		p.Expired += amount
		return nil
	}
	p.Available += amount
	return b.settleDebt(ctx, p, amount)
}

// settleDebt pays the payer's debt from at most amount of what grant p has available (R50).
func (b *potBook) settleDebt(ctx context.Context, p *quota.Pot, amount int64) error {
	if b.clear[p.Payer] {
		return nil
	}
	paid, err := payDebt(ctx, b.tx, quota.PotRef{Payer: p.Payer, Pot: p.ID}, amount)
	b.clear[p.Payer] = err == nil && paid < amount
	p.Available -= paid
	p.Direct += paid
	return err
}
