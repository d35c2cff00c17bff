package relational

import (
	"context"
	"fmt"

	"github.com/purser-io/purser/quota"
)

const (
	findBudgetSQL = `SELECT id, unit, cap, window_kind, label_key, label_value, soft, warn_percent, create_time, revision
FROM budgets WHERE account_id = $1 AND id = $2`

	insertBudgetSQL = `INSERT INTO budgets (account_id, id, unit, cap, window_kind, label_key, label_value, soft, warn_percent,
       create_time, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`

	updateBudgetSQL = `UPDATE budgets SET cap = $3, soft = $4, warn_percent = $5, revision = $6
WHERE account_id = $1 AND id = $2`

	deleteBudgetSQL = `DELETE FROM budgets WHERE account_id = $1 AND id = $2`

	// otherUnitSQL finds a window that an earlier budget of this id counted in another unit.
	otherUnitSQL = `SELECT unit FROM pots
WHERE payer_id = $1 AND kind = 2 AND account_id = $2 AND limit_id = $3 AND unit <> $4 LIMIT 1`
)

// PutBudget see [quota.AccountStore]. A budget keeps what it counts (unit, window, labels):
// its windows' pots are named by its id alone (R33), and would count on in something else.
func (s *Store) PutBudget(ctx context.Context, m quota.Mutation, budget quota.Budget, etag int64) (quota.Budget, error) {
	return admin(ctx, s, m, func(a *adminTx) (quota.Budget, error) {
		b := budget
		payer, err := payerOf(ctx, a, b.Account)
		if err != nil {
			return b, err
		}
		old, found, err := findBudget(ctx, a, b.Account, b.ID)
		if err != nil {
			return b, err
		}
		if !found {
			return a.createBudget(b, payer, etag)
		}
		if err := checkETag(etag, old.Revision); err != nil {
			return b, err
		}
		if !sameCount(&old, &b) {
			return b, quota.Errorf(quota.ReasonRequestInvalid,
				"budget "+quoted(b.ID)+" keeps its unit, window and labels: make another budget, and delete this one")
		}
		if b.Revision, err = a.touchAccount(b.Account); err != nil {
			return b, err
		}
		b.CreateTime = old.CreateTime
		return b, a.exec(updateBudgetSQL, b.Account, b.ID, b.Cap, flag(b.Soft), int64(b.WarnPercent), b.Revision)
	})
}

func sameCount(a, b *quota.Budget) bool {
	return a.Unit == b.Unit && a.Window == b.Window && a.LabelKey == b.LabelKey && a.LabelValue == b.LabelValue
}

func (a *adminTx) createBudget(b quota.Budget, payer string, etag int64) (quota.Budget, error) {
	if etag != 0 {
		return b, noBudget(b.Account, b.ID)
	}
	var unit string
	counted, err := queryRow(a.ctx, a, otherUnitSQL, []any{payer, b.Account, b.ID, b.Unit}, &unit)
	if err != nil {
		return b, fmt.Errorf("read windows: %w", err)
	}
	if counted {
		return b, refuse(quota.ReasonResourceInUse,
			"a deleted budget "+quoted(b.ID)+" counted in another unit: choose another id", "account", b.Account, "budget", b.ID)
	}
	if b.Revision, err = a.touchAccount(b.Account); err != nil {
		return b, err
	}
	b.CreateTime = a.now
	return b, a.insert("budget", b.ID, insertBudgetSQL, b.Account, b.ID, b.Unit, b.Cap, int64(b.Window), b.LabelKey,
		b.LabelValue, flag(b.Soft), int64(b.WarnPercent), b.CreateTime, b.Revision)
}

// DeleteBudget see [quota.AccountStore]. Its windows' pots stay: allotments may be out.
func (s *Store) DeleteBudget(ctx context.Context, m quota.Mutation, account, id string, etag int64) error {
	_, err := admin(ctx, s, m, func(a *adminTx) (struct{}, error) {
		old, found, err := findBudget(ctx, a, account, id)
		if err != nil {
			return struct{}{}, err
		}
		if !found {
			return struct{}{}, noBudget(account, id)
		}
		if err := checkETag(etag, old.Revision); err != nil {
			return struct{}{}, err
		}
		if _, err := a.touchAccount(account); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, a.exec(deleteBudgetSQL, account, id)
	})
	return err
}

func findBudget(ctx context.Context, tx Tx, account, id string) (quota.Budget, bool, error) {
	var row budgetRow
	found, err := queryRow(ctx, tx, findBudgetSQL, []any{account, id}, row.dest()...)
	if err != nil {
		return quota.Budget{}, false, fmt.Errorf("read budget: %w", err)
	}
	return row.toBudget(account), found, nil
}

func noBudget(account, id string) error {
	return refuse(quota.ReasonBudgetNotFound, "account "+quoted(account)+" has no budget "+quoted(id), "account", account, "budget", id)
}
