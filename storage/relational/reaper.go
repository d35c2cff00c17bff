package relational

import (
	"context"
	"fmt"
	"time"

	"github.com/purser-io/purser/quota"
)

const (
	selectOverdue = `SELECT id FROM incarnations WHERE state = 1 AND id <> $1 AND issue_until < $2 ORDER BY id`
	markDead      = `UPDATE incarnations SET state = 2, end_time = $1 WHERE id = $2 AND state = 1 AND issue_until < $3`
	buryLive      = `UPDATE incarnations SET state = 2, end_time = $1 WHERE state = 1 AND id <> $2`
	// What a predecessor promised stands in its row (R31): this process may have been started
	// with a shorter hold.
	setCloseAfter = `UPDATE incarnations
SET close_after = CASE WHEN hold_until - issue_until > $3 THEN hold_until - issue_until + $1 ELSE $4 END
WHERE state = 2 AND close_after = 0 AND id <> $2`
	// $1 is now, $2 is now less the margin for clocks that differ (R10).
	selectClosable = `SELECT l.lane_id FROM lanes l JOIN incarnations i ON i.id = l.incarnation_id
WHERE l.state <> 3 AND ((i.state = 3 AND i.hold_until <= $1)
  OR (i.state = 2 AND i.close_after <> 0 AND i.close_after <= $2)
  OR (i.state = 2 AND i.close_after = 0 AND i.hold_until <= $2))
ORDER BY l.lane_id LIMIT $3`
	selectClosing   = `SELECT state, gc_before FROM lanes WHERE lane_id = $1`
	fenceLane       = `UPDATE lanes SET state = 2 WHERE lane_id = $1 AND state = 1`
	closeLane       = `UPDATE lanes SET state = 3, close_time = $2 WHERE lane_id = $1`
	selectOpen      = `SELECT number, payer_id, pot_id, amount FROM allotments WHERE lane_id = $1 AND state = 1 ORDER BY number LIMIT $2`
	selectParts     = `SELECT k1, k2, body FROM journal WHERE lane_id = $1 AND tag = 2 ORDER BY k1, k2`
	closeAllotment  = `UPDATE allotments SET state = 3, spent = $3 WHERE lane_id = $1 AND number = $2`
	selectExpired   = `SELECT payer_id, pot_id FROM pots WHERE kind = 1 AND available > 0 AND end_time <= $1 ORDER BY end_time, payer_id, pot_id LIMIT $2`
	selectNextClose = `SELECT COALESCE(MIN(CASE WHEN i.state = 2 AND i.close_after <> 0 THEN i.close_after ELSE i.hold_until END), 0)
FROM allotments a JOIN lanes l ON l.lane_id = a.lane_id JOIN incarnations i ON i.id = l.incarnation_id
WHERE a.payer_id = $1 AND a.state = 1 AND i.state <> 1`
)

// MarkDead see [quota.ReaperStore]. It writes by key: a transaction that searched and wrote at
// once would read the rows that live nodes renew all the time, and PostgreSQL refuse it for
// that whenever somebody reads meanwhile who is alive.
func (s *Store) MarkDead(ctx context.Context, self string, skew time.Duration) (int, error) {
	overdue, err := s.overdue(ctx, self, skew)
	if err != nil || len(overdue) == 0 {
		return 0, err
	}
	var marked int64
	err = s.write(ctx, "mark dead", func(tx Tx) error {
		marked = 0
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		for _, id := range overdue {
			n, err := tx.Exec(ctx, markDead, now, id, now-2*int64(skew)) // unless it was renewed since
			if err != nil {
				return err
			}
			marked += n
		}
		return nil
	})
	return int(marked), err
}

// overdue lists incarnations whose lease has run out.
func (s *Store) overdue(ctx context.Context, self string, skew time.Duration) (ids []string, err error) {
	err = s.read(ctx, "find overdue leases", func(tx Tx) error {
		ids = nil
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		return each(ctx, tx, selectOverdue, []any{self, now - 2*int64(skew)}, func(rows Rows) error {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			ids = append(ids, id)
			return nil
		})
	})
	return ids, err
}

// BuryPredecessors see [quota.ReaperStore]. What is written stays: a crash loop must not push
// the close out (R29).
func (s *Store) BuryPredecessors(ctx context.Context, self string, hold time.Duration) error {
	return s.write(ctx, "bury predecessors", func(tx Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, buryLive, now, self); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, setCloseAfter, now, self, int64(hold), now+int64(hold))
		return err
	})
}

// Closable see [quota.ReaperStore].
func (s *Store) Closable(ctx context.Context, skew time.Duration, limit int) (lanes []quota.LaneID, err error) {
	err = s.read(ctx, "list closable lanes", func(tx Tx) error {
		lanes = nil
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		args := []any{now, now - 2*int64(skew), int64(limit)}
		return each(ctx, tx, selectClosable, args, func(rows Rows) error {
			var id int64
			err := rows.Scan(&id)
			lanes = append(lanes, quota.LaneID(id))
			return err
		})
	})
	return lanes, err
}

// Fence see [quota.ReaperStore]. It stands in a transaction of its own: sums read in one that
// starts later are final (R22).
func (s *Store) Fence(ctx context.Context, lane quota.LaneID) error {
	return s.write(ctx, "fence", func(tx Tx) error {
		_, err := tx.Exec(ctx, fenceLane, int64(lane))
		return err
	})
}

// CloseLane see [quota.ReaperStore].
func (s *Store) CloseLane(ctx context.Context, lane quota.LaneID, now int64, limit int) (done bool, err error) {
	err = s.write(ctx, "close lane", func(tx Tx) (err error) {
		done, err = closeSome(ctx, tx, lane, now, max(limit, 1))
		return err
	})
	return done, err
}

func closeSome(ctx context.Context, tx Tx, lane quota.LaneID, now int64, limit int) (done bool, err error) {
	var state int16
	var gcBefore int64
	found, err := queryRow(ctx, tx, selectClosing+tx.ForUpdate(), []any{int64(lane)}, &state, &gcBefore)
	switch {
	case err != nil:
		return false, fmt.Errorf("read lane: %w", err)
	case found && state == int16(quota.LaneClosed):
		return true, nil
	case !found || state != int16(quota.LaneClosing):
		return false, violated("lane %d is not CLOSING", lane)
	}
	expired, err := expireInterims(ctx, tx, lane, gcBefore, now, limit)
	if err != nil {
		return false, fmt.Errorf("expire with usage: %w", err)
	}
	if expired == limit { // there may be more, and what they charge is spent
		return false, nil
	}
	open, err := readOpen(ctx, tx, lane, limit+1)
	if err != nil {
		return false, fmt.Errorf("read allotments: %w", err)
	}
	if done = len(open) <= limit; !done {
		open = open[:limit]
	}
	if len(open) > 0 {
		if err := closeAllotments(ctx, tx, lane, open, now); err != nil {
			return false, err
		}
	}
	if done {
		at, err := tx.Now(ctx)
		if err != nil {
			return false, err
		}
		if _, err := tx.Exec(ctx, closeLane, int64(lane), at); err != nil {
			return false, fmt.Errorf("close lane: %w", err)
		}
	}
	return done, nil
}

func readOpen(ctx context.Context, tx Tx, lane quota.LaneID, limit int) (open []allotmentRow, err error) {
	err = each(ctx, tx, selectOpen+tx.ForUpdate(), []any{int64(lane), int64(limit)}, func(rows Rows) error {
		var a allotmentRow
		err := rows.Scan(&a.number, &a.pot.Payer, &a.pot.Pot, &a.amount)
		open = append(open, a)
		return err
	})
	return open, err
}

// closeAllotments is the arithmetic of R22: spent is what the lane's entries say, read here,
// behind the fence.
func closeAllotments(ctx context.Context, tx Tx, lane quota.LaneID, open []allotmentRow, now int64) error {
	spent, err := sumEntries(ctx, tx, lane)
	if err != nil {
		return fmt.Errorf("sum entries: %w", err)
	}
	book := newPotBook(tx)
	refs := make([]quota.PotRef, len(open))
	for i := range open {
		refs[i] = open[i].pot
	}
	if err := book.load(ctx, refs); err != nil {
		return err
	}
	rows := make([][]any, len(open))
	for i := range open {
		a := &open[i]
		used := spent[uint32(a.number)]
		if used < 0 || used > a.amount {
			return violated("allotment %d of lane %d has %d and its entries charge %d (I2)", a.number, lane, a.amount, used)
		}
		pot := book.pots[a.pot]
		pot.Escrowed -= used
		pot.Spent += used
		if err := book.comeHome(ctx, pot, a.amount-used, now); err != nil {
			return err
		}
		rows[i] = []any{int64(lane), a.number, used}
	}
	if err := book.write(ctx); err != nil {
		return err
	}
	return bulk(ctx, tx, closeAllotment, rows)
}

// sumEntries adds up what a lane's entries charge to each of its allotments.
func sumEntries(ctx context.Context, tx Tx, lane quota.LaneID) (map[uint32]int64, error) {
	sums := make(map[uint32]int64)
	err := each(ctx, tx, selectParts, []any{int64(lane)}, func(rows Rows) error {
		e, err := scanEntry(rows, lane)
		for _, p := range e.Parts {
			sums[p.Allotment] += p.Amount
		}
		return err
	})
	return sums, err
}

// ExpireGrants see [quota.ReaperStore].
func (s *Store) ExpireGrants(ctx context.Context, now int64, limit int) (count int, err error) {
	err = s.write(ctx, "expire grants", func(tx Tx) error {
		var refs []quota.PotRef
		err := each(ctx, tx, selectExpired, []any{now, int64(limit)}, func(rows Rows) error {
			var ref quota.PotRef
			err := rows.Scan(&ref.Payer, &ref.Pot)
			refs = append(refs, ref)
			return err
		})
		if err != nil {
			return err
		}
		count = len(refs)
		book := newPotBook(tx)
		if err := book.load(ctx, refs); err != nil {
			return err
		}
		for _, ref := range refs {
			pot := book.pots[ref]
			pot.Expired, pot.Available = pot.Expired+pot.Available, 0
		}
		return book.write(ctx)
	})
	return count, err
}

// NextClose see [quota.ReaperStore].
func (s *Store) NextClose(ctx context.Context, payer string) (at int64, err error) {
	err = s.read(ctx, "find next close", func(tx Tx) error {
		_, err := queryRow(ctx, tx, selectNextClose, []any{payer}, &at)
		return err
	})
	return at, err
}
