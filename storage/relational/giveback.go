package relational

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/purser-io/purser/quota"
)

const (
	selectAllotments = `SELECT number, payer_id, pot_id, amount, state, shrink_sequence FROM allotments
WHERE lane_id = $1 AND number IN ($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`
	updateShrunk = `UPDATE allotments SET amount = $3, spent = $4, state = $5, shrink_sequence = $6
WHERE lane_id = $1 AND number = $2`
)

// listed is how many numbers a statement with a list of them takes; fewer are repeated.
const listed = 16

// allotmentRow is an allotment as read for a change.
type allotmentRow struct {
	number   int64
	pot      quota.PotRef
	amount   int64
	state    int16
	sequence int64 // of the last shrink
}

// scan reads the columns of selectAllotments.
func (a *allotmentRow) scan(rows Rows) error {
	return rows.Scan(&a.number, &a.pot.Payer, &a.pot.Pot, &a.amount, &a.state, &a.sequence)
}

// numberArgs fills the list of selectAllotments with at most listed numbers.
func numberArgs(lane quota.LaneID, numbers []quota.AllotmentNo) []any {
	args := []any{int64(lane)}
	for i := range listed {
		args = append(args, int64(numbers[min(i, len(numbers)-1)]))
	}
	return args
}

// Return see [quota.DrawStore]. The incarnation's lease does not matter: who lost it still
// gives back, until the lane is fenced (R30).
func (s *Store) Return(ctx context.Context, lane quota.LaneID, shrinks []quota.Shrink) error {
	shrinks = slices.Clone(shrinks)
	slices.SortStableFunc(shrinks, func(a, b quota.Shrink) int { return cmp.Compare(a.Number, b.Number) })
	return s.write(ctx, "return", func(tx Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if err := checkOpen(ctx, tx, lane); err != nil {
			return err
		}
		return giveBack(ctx, tx, lane, shrinks, now)
	})
}

// checkOpen is the fence (R3) of transactions of more than one statement.
func checkOpen(ctx context.Context, tx Tx, lane quota.LaneID) error {
	var state int16
	found, err := queryRow(ctx, tx, selectLaneState, []any{int64(lane)}, &state)
	if err != nil {
		return fmt.Errorf("read lane: %w", err)
	}
	if !found || state != int16(quota.LaneOpen) {
		return fenced("the lane is not open")
	}
	return nil
}

func giveBack(ctx context.Context, tx Tx, lane quota.LaneID, shrinks []quota.Shrink, now int64) error {
	numbers := make([]quota.AllotmentNo, len(shrinks))
	for i := range shrinks {
		numbers[i] = shrinks[i].Number
	}
	allotments, err := readAllotments(ctx, tx, lane, numbers)
	if err != nil {
		return fmt.Errorf("read allotments: %w", err)
	}
	book := newPotBook(tx)
	var refs []quota.PotRef
	for _, a := range allotments {
		refs = append(refs, a.pot)
	}
	if err := book.load(ctx, refs); err != nil {
		return err
	}
	var changed [][]any
	for i := range shrinks {
		a := allotments[shrinks[i].Number]
		if a == nil {
			return violated("allotment %d of lane %d does not exist", shrinks[i].Number, lane)
		}
		row, err := shrink(ctx, book, a, &shrinks[i], now)
		if err != nil {
			return err
		}
		if row != nil {
			changed = append(changed, append([]any{int64(lane)}, row...))
		}
	}
	if err := book.write(ctx); err != nil {
		return err
	}
	return bulk(ctx, tx, updateShrunk, changed)
}

// shrink applies one shrink in memory and returns the allotment's new values; nil if it was
// applied before (R19).
func shrink(ctx context.Context, book *potBook, a *allotmentRow, s *quota.Shrink, now int64) ([]any, error) {
	if s.Sequence <= a.sequence {
		return nil, nil
	}
	if s.Sequence != a.sequence+1 || a.state != allotmentOpen || s.Amount < 0 || s.Amount > a.amount {
		return nil, violated("shrink %d by %d does not fit allotment %d with %d after shrink %d",
			s.Sequence, s.Amount, a.number, a.amount, a.sequence)
	}
	pot := book.pots[a.pot]
	if err := book.comeHome(ctx, pot, s.Amount, now); err != nil {
		return nil, err
	}
	a.amount, a.sequence = a.amount-s.Amount, s.Sequence
	var spent int64
	if s.Close { // R46
		spent, a.state = a.amount, allotmentClosed
		pot.Escrowed -= spent
		pot.Spent += spent
	}
	return []any{a.number, a.amount, spent, a.state, a.sequence}, nil
}

// readAllotments reads and locks allotments of a lane by number.
func readAllotments(ctx context.Context, tx Tx, lane quota.LaneID, numbers []quota.AllotmentNo) (map[quota.AllotmentNo]*allotmentRow, error) {
	found := make(map[quota.AllotmentNo]*allotmentRow, len(numbers))
	for chunk := range slices.Chunk(numbers, listed) {
		err := each(ctx, tx, selectAllotments+tx.ForUpdate(), numberArgs(lane, chunk), func(rows Rows) error {
			var a allotmentRow
			err := a.scan(rows)
			found[quota.AllotmentNo(a.number)] = &a
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
