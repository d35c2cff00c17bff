package relational

import (
	"context"
	"fmt"
	"strings"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/amount"
)

const (
	findPayerSQL = `SELECT payer_id FROM accounts WHERE id = $1`

	listGrantsSQL = `SELECT p.payer_id, p.pot_id, p.kind, p.unit, p.granted, p.available, p.escrowed, p.spent, p.expired, p.refunded,
       p.direct, p.start_time, p.end_time, p.account_id, p.limit_id, p.selector, p.grant_kind, p.priority, p.cost_basis, p.note,
       p.voided, p.create_time
FROM accounts a JOIN pots p ON p.payer_id = a.payer_id
WHERE a.id = $1 AND p.kind = 1 AND p.pot_id > $2 ORDER BY p.pot_id LIMIT $3`

	openPotsSQL = `SELECT payer_id, pot_id, kind, unit, granted, available, escrowed, spent, expired, refunded, direct,
       start_time, end_time, account_id, limit_id, selector, grant_kind, priority, cost_basis, note, voided, create_time
FROM pots WHERE payer_id = $1 AND voided = 0 AND start_time <= $2 AND end_time > $2 ORDER BY pot_id`

	voidPotSQL = `UPDATE pots SET voided = 1 WHERE payer_id = $1 AND pot_id = $2`
)

// payerOf is who pays for an account.
func payerOf(ctx context.Context, tx Tx, account string) (payer string, err error) {
	found, err := queryRow(ctx, tx, findPayerSQL, []any{account}, &payer)
	if err == nil && !found {
		err = noAccount(account)
	}
	return payer, err
}

// CreateGrant see [quota.AccountStore]. Debt is paid by a grant that becomes effective later
// as well: draws stop while there is debt, so nothing else would ever pay it.
func (s *Store) CreateGrant(ctx context.Context, m quota.Mutation, account string, grant quota.Pot) (quota.Pot, error) {
	return admin(ctx, s, m, func(a *adminTx) (quota.Pot, error) {
		g := grant
		if err := checkGrant(&g, a.now); err != nil {
			return g, err
		}
		var err error
		if g.Payer, err = payerOf(ctx, a, account); err != nil {
			return g, err
		}
		if _, err := a.change(quota.ChangeAccount, g.Payer); err != nil {
			return g, err
		}
		g.Account, g.CreateTime = account, a.now
		g.Available, g.Escrowed, g.Spent, g.Expired, g.Refunded, g.Direct = g.Granted, 0, 0, 0, 0, 0
		if err := a.insert("grant", strings.TrimPrefix(g.ID, quota.GrantPotID("")), insertPot, potRow(&g)...); err != nil {
			return g, err
		}
		return g, a.payFrom(&g)
	})
}

// payFrom pays the payer's debt from a new grant in its own transaction (R50).
func (a *adminTx) payFrom(g *quota.Pot) error {
	if g.Unit != quota.UnitCredits {
		return nil
	}
	book := newPotBook(a)
	p := book.hold(*g)
	if err := book.settleDebt(a.ctx, p, p.Available); err != nil {
		return err
	}
	if err := book.write(a.ctx); err != nil {
		return err
	}
	*g = *p
	return nil
}

// checkGrant refuses what would break the books, whoever let it through.
func checkGrant(g *quota.Pot, now int64) error {
	switch {
	case g.Kind != quota.PotWallet || !strings.HasPrefix(g.ID, quota.GrantPotID("")) || g.Voided:
		return quota.Errorf(quota.ReasonRequestInvalid, "this is not a new grant")
	case g.Granted <= 0 || g.Granted > amount.Max:
		return quota.Errorf(quota.ReasonAmountInvalid,
			fmt.Sprintf("a grant is of at least 1 micro and at most %d; this one is of %d", int64(amount.Max), g.Granted))
	case g.End <= g.Start || g.End <= now:
		return quota.Errorf(quota.ReasonRequestInvalid, "the grant would expire before anything could be drawn from it")
	}
	return nil
}

// VoidGrant see [quota.AccountStore]. What has expired stays expired. Voiding again changes
// nothing and answers the grant as it is.
func (s *Store) VoidGrant(ctx context.Context, m quota.Mutation, account, grant string) (quota.Pot, error) {
	return admin(ctx, s, m, func(a *adminTx) (quota.Pot, error) {
		payer, err := payerOf(ctx, a, account)
		if err != nil {
			return quota.Pot{}, err
		}
		book := newPotBook(a)
		p, err := book.find(ctx, quota.PotRef{Payer: payer, Pot: quota.GrantPotID(grant)})
		switch {
		case err != nil:
			return quota.Pot{}, err
		case p == nil:
			return quota.Pot{}, refuse(quota.ReasonGrantNotFound, "account "+quoted(account)+" has no grant "+quoted(grant), "account", account, "grant", grant)
		case p.Voided:
			return *p, nil
		}
		if p.End <= a.now {
			p.Expired += p.Available
		} else {
			p.Refunded += p.Available
		}
		p.Available = 0
		if err := book.write(ctx); err != nil {
			return *p, err
		}
		p.Voided = true
		if err := a.exec(voidPotSQL, payer, p.ID); err != nil {
			return *p, err
		}
		_, err = a.touchAccount(payer)
		return *p, err
	})
}

// ListGrants see [quota.AccountStore]. The page's key is the pot's id.
func (s *Store) ListGrants(ctx context.Context, account string, p quota.Page) (grants []quota.Pot, err error) {
	limit, err := limitOf(p)
	if err != nil {
		return nil, err
	}
	err = s.read(ctx, "list grants", func(tx Tx) error {
		if _, err := payerOf(ctx, tx, account); err != nil {
			return err
		}
		grants, err = pots(ctx, tx, listGrantsSQL, account, p.After, limit)
		return err
	})
	return grants, err
}

// Pots see [quota.AccountStore].
func (s *Store) Pots(ctx context.Context, payer string, now int64) (open []quota.Pot, debt int64, err error) {
	err = s.read(ctx, "read pots", func(tx Tx) error {
		if open, err = pots(ctx, tx, openPotsSQL, payer, now); err != nil {
			return err
		}
		if err := projected(ctx, tx, payer, open); err != nil {
			return err
		}
		debt, err = debtOf(ctx, tx, payer)
		return err
	})
	return open, debt, err
}

const selectProjected = `SELECT pot_id, amount FROM spent WHERE payer_id = $1`

// projected fills in what the projector counted so far (R21).
func projected(ctx context.Context, tx Tx, payer string, list []quota.Pot) error {
	byID := make(map[string]*quota.Pot, len(list))
	for i := range list {
		byID[list[i].ID] = &list[i]
	}
	return each(ctx, tx, selectProjected, []any{payer}, func(r Rows) error {
		var id string
		var amount int64
		err := r.Scan(&id, &amount)
		if p := byID[id]; p != nil {
			p.Projected = amount
		}
		return err
	})
}

func pots(ctx context.Context, tx Tx, sql string, args ...any) (list []quota.Pot, err error) {
	err = each(ctx, tx, sql, args, func(r Rows) error {
		p, err := scanPot(r)
		list = append(list, p)
		return err
	})
	return list, err
}
