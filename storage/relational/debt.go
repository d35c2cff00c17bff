package relational

import (
	"context"
	"fmt"

	"github.com/purser-io/purser/quota"
)

const (
	selectDebt  = `SELECT debt FROM debts WHERE payer_id = $1`
	updateDebt  = `UPDATE debts SET debt = debt - $2 WHERE payer_id = $1`
	upsertDebt  = `INSERT INTO debts (payer_id, debt) VALUES ($1, $2) ON CONFLICT (payer_id) DO UPDATE SET debt = debts.debt + excluded.debt`
	upsertSpent = `INSERT INTO spent (payer_id, pot_id, amount) VALUES ($1, $2, $3)
ON CONFLICT (payer_id, pot_id) DO UPDATE SET amount = spent.amount + excluded.amount`
	bumpEpoch = `UPDATE accounts SET epoch = epoch + 1, revision = $2 WHERE id = $1`
)

// debtOf is what a payer owes, 0 if nothing.
func debtOf(ctx context.Context, tx Tx, payer string) (debt int64, err error) {
	_, err = queryRow(ctx, tx, selectDebt, []any{payer}, &debt)
	return debt, err
}

// payDebt takes what the payer owes, at most amount, out of credit of the grant ref that is
// on its way to available (R50). The caller adds paid to the grant's direct instead. It
// counts as spent, so that a grant's spent figure is spent + direct whoever paid.
func payDebt(ctx context.Context, tx Tx, ref quota.PotRef, amount int64) (paid int64, err error) {
	debt, err := debtOf(ctx, tx, ref.Payer)
	if err != nil {
		return 0, fmt.Errorf("read debt: %w", err)
	}
	if paid = min(debt, amount); paid <= 0 {
		return 0, nil
	}
	if _, err := tx.Exec(ctx, updateDebt, ref.Payer, paid); err != nil {
		return 0, fmt.Errorf("pay debt: %w", err)
	}
	if _, err := tx.Exec(ctx, upsertSpent, ref.Payer, ref.Pot, paid); err != nil {
		return 0, fmt.Errorf("pay debt: %w", err)
	}
	return paid, nil
}

// addDebt makes a payer owe more. Its epoch moves, so that every node's next draw notices
// (R12, R25).
func addDebt(ctx context.Context, tx Tx, payer string, amount int64) error {
	if _, err := tx.Exec(ctx, upsertDebt, payer, amount); err != nil {
		return fmt.Errorf("add debt: %w", err)
	}
	revision, err := bumpRevision(ctx, tx, quota.ChangeAccount, payer)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, bumpEpoch, payer, revision)
	return err
}
