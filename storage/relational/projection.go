package relational

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/purser-io/purser/quota"
)

const (
	selectProjectable = `SELECT c.lane_id, c.batch_no, l.state FROM cursors c
JOIN lanes l ON l.lane_id = c.lane_id JOIN incarnations i ON i.id = l.incarnation_id
WHERE c.finished = 0 AND (i.id = $1 OR i.state <> 1) ORDER BY c.lane_id`
	selectBatches    = `SELECT k1, body FROM journal WHERE lane_id = $1 AND tag = 1 AND k1 > $2 ORDER BY k1 LIMIT $3`
	advanceCursor    = `UPDATE cursors SET batch_no = $3 WHERE lane_id = $1 AND batch_no = $2`
	finishCursor     = `UPDATE cursors SET finished = 1 WHERE lane_id = $1 AND batch_no = $2`
	insertUsageEvent = `INSERT INTO usage_events (lane_id, sequence, phase, account_id, payer_id, principal, feature, labels, price_version,
       usage, charged, covered, uncovered, grants, outcome, reserve_time, settle_time, nonce)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`
	upsertRollup = `INSERT INTO rollups (account_id, hour, feature, meter, quantity, micros, events) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (account_id, hour, feature, meter) DO UPDATE SET quantity = rollups.quantity + excluded.quantity,
       micros = rollups.micros + excluded.micros, events = rollups.events + excluded.events`
)

// Projectable see [quota.ProjectionStore].
func (s *Store) Projectable(ctx context.Context, self string) (cursors []quota.Cursor, err error) {
	err = s.read(ctx, "list projectable lanes", func(tx Tx) error {
		cursors = nil
		return each(ctx, tx, selectProjectable, []any{self}, func(rows Rows) error {
			var c quota.Cursor
			var lane int64
			var state int16
			err := rows.Scan(&lane, &c.No, &state)
			c.Lane, c.Closed = quota.LaneID(lane), state == int16(quota.LaneClosed)
			cursors = append(cursors, c)
			return err
		})
	})
	return cursors, err
}

// Batches see [quota.ProjectionStore].
func (s *Store) Batches(ctx context.Context, c quota.Cursor, limit int) (batches []quota.Batch, err error) {
	err = s.read(ctx, "read batches", func(tx Tx) error {
		batches = nil
		next, gap := c.No+1, false
		return each(ctx, tx, selectBatches, []any{int64(c.Lane), c.No, int64(limit)}, func(rows Rows) error {
			b := quota.Batch{Lane: c.Lane}
			var body []byte
			if err := rows.Scan(&b.No, &body); err != nil {
				return err
			}
			if gap = gap || b.No != next; gap {
				return nil // what is missing may still land (R20)
			}
			next++
			var err error
			b.Records, err = quota.DecodeRecords(body)
			batches = append(batches, b)
			return err
		})
	})
	return batches, err
}

// PotsOf see [quota.ProjectionStore].
func (s *Store) PotsOf(ctx context.Context, refs []quota.AllotmentRef) (pots map[quota.AllotmentRef]quota.PotRef, err error) {
	byLane := make(map[quota.LaneID][]quota.AllotmentNo)
	for _, ref := range refs {
		byLane[ref.Lane] = append(byLane[ref.Lane], ref.Number)
	}
	err = s.read(ctx, "read allotments' pots", func(tx Tx) error {
		pots = make(map[quota.AllotmentRef]quota.PotRef, len(refs))
		for lane, numbers := range byLane {
			slices.Sort(numbers)
			if err := potsOfLane(ctx, tx, lane, slices.Compact(numbers), pots); err != nil {
				return err
			}
		}
		return nil
	})
	return pots, err
}

func potsOfLane(ctx context.Context, tx Tx, lane quota.LaneID, numbers []quota.AllotmentNo, pots map[quota.AllotmentRef]quota.PotRef) error {
	for chunk := range slices.Chunk(numbers, listed) {
		err := each(ctx, tx, selectAllotments, numberArgs(lane, chunk), func(rows Rows) error {
			var a allotmentRow
			err := a.scan(rows)
			pots[quota.AllotmentRef{Lane: lane, Number: quota.AllotmentNo(a.number)}] = a.pot
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Project see [quota.ProjectionStore].
func (s *Store) Project(ctx context.Context, p *quota.Projection) (applied bool, err error) {
	events := make([][]any, len(p.Events))
	for i := range p.Events {
		if events[i], err = usageEventRow(&p.Events[i]); err != nil {
			return false, err
		}
	}
	err = s.write(ctx, "project", func(tx Tx) error {
		n, err := tx.Exec(ctx, advanceCursor, int64(p.Lane), p.From, p.To)
		if applied = err == nil && n == 1; !applied {
			return err
		}
		return project(ctx, tx, p, events)
	})
	return applied && err == nil, err
}

func project(ctx context.Context, tx Tx, p *quota.Projection, events [][]any) error {
	if err := bulk(ctx, tx, insertUsageEvent, events); err != nil {
		return fmt.Errorf("insert usage events: %w", err)
	}
	if err := bulk(ctx, tx, upsertRollup, rollupRows(p.Rollups)); err != nil {
		return fmt.Errorf("add to rollups: %w", err)
	}
	spent := slices.Clone(p.Spent)
	slices.SortFunc(spent, func(a, b quota.SpentDelta) int { return compareRefs(a.PotRef, b.PotRef) })
	if err := bulk(ctx, tx, upsertSpent, spentRows(spent)); err != nil {
		return fmt.Errorf("add to spent: %w", err)
	}
	return claimAll(ctx, tx, p)
}

// rollupRows are in key order, so that two projectors never wait for each other.
func rollupRows(rollups []quota.Rollup) [][]any {
	rollups = slices.Clone(rollups)
	slices.SortFunc(rollups, func(a, b quota.Rollup) int {
		return cmp.Or(strings.Compare(a.Account, b.Account), cmp.Compare(a.Hour, b.Hour),
			strings.Compare(a.Feature, b.Feature), strings.Compare(a.Meter, b.Meter))
	})
	rows := make([][]any, len(rollups))
	for i, r := range rollups {
		rows[i] = []any{r.Account, r.Hour, r.Feature, r.Meter, r.Quantity, r.Micros, r.Events}
	}
	return rows
}

func spentRows(spent []quota.SpentDelta) [][]any {
	rows := make([][]any, len(spent))
	for i, d := range spent {
		rows[i] = []any{d.Payer, d.Pot, d.Amount}
	}
	return rows
}

// claimAll debits what no allotment covered: exactly once, because the cursor moved in this
// transaction (R25).
func claimAll(ctx context.Context, tx Tx, p *quota.Projection) error {
	if len(p.Claims) == 0 {
		return nil
	}
	claims := slices.Clone(p.Claims)
	slices.SortStableFunc(claims, func(a, b quota.Claim) int {
		return cmp.Or(strings.Compare(a.Payer, b.Payer), strings.Compare(a.Pot, b.Pot))
	})
	c := claiming{tx: tx, book: newPotBook(tx), now: p.Now, debts: make(map[string]int64)}
	for i := range claims {
		claim := &claims[i]
		if claim.Amount < 0 {
			return violated("a claim of %d on %q", claim.Amount, claim.Payer)
		}
		apply := c.window
		if claim.Kind == quota.PotWallet {
			apply = c.wallet
		}
		if err := apply(ctx, claim); err != nil {
			return fmt.Errorf("claim: %w", err)
		}
	}
	return c.write(ctx)
}

// claiming is the claims of one projection.
type claiming struct {
	tx    Tx
	book  *potBook
	now   int64
	made  []*quota.Pot // windows that no draw has made yet
	spent []quota.SpentDelta
	debts map[string]int64 // by payer
	owing []string         // payers in debts, in order
}

// wallet debits open grants in burn order; the rest becomes debt.
func (c *claiming) wallet(ctx context.Context, claim *quota.Claim) error {
	grants, err := c.book.grants(ctx, claim.Payer, c.now)
	if err != nil {
		return err
	}
	slices.SortFunc(grants, burnOrder)
	left := claim.Amount
	for _, g := range grants {
		amount := min(left, g.Available)
		if amount <= 0 {
			continue
		}
		g.Available -= amount
		g.Direct += amount
		left -= amount
		c.spent = append(c.spent, quota.SpentDelta{PotRef: quota.PotRef{Payer: g.Payer, Pot: g.ID}, Amount: amount})
	}
	if left == 0 {
		return nil
	}
	if _, owes := c.debts[claim.Payer]; !owes {
		c.owing = append(c.owing, claim.Payer)
	}
	c.debts[claim.Payer] += left
	return nil
}

// window counts the claim as taken, past the cap if need be (I12).
func (c *claiming) window(ctx context.Context, claim *quota.Claim) error {
	pot, err := c.book.find(ctx, quota.PotRef{Payer: claim.Payer, Pot: claim.Pot})
	if err != nil {
		return err
	}
	if pot == nil {
		made, err := windowOf(claim, c.now)
		if err != nil {
			return err
		}
		pot = c.book.hold(made)
		c.made = append(c.made, &made)
	}
	pot.Direct += claim.Amount
	return nil
}

// windowOf reads a window pot back from its id, for usage of a meter of which nothing was
// held and nothing was ever drawn. Unit and end are not in the id: the first draw adds them.
func windowOf(claim *quota.Claim, now int64) (quota.Pot, error) {
	fields := strings.SplitN(claim.Pot, "/", 5)
	if len(fields) == 5 {
		start, err := strconv.ParseInt(fields[3], 36, 64)
		pot := quota.Pot{Payer: claim.Payer, ID: claim.Pot, Kind: claim.Kind, Account: fields[1], Limit: fields[2],
			Selector: fields[4], Start: start, CreateTime: now}
		if err == nil {
			return pot, nil
		}
	}
	return quota.Pot{}, violated("a claim on %q, which is no window's pot", claim.Pot)
}

func (c *claiming) write(ctx context.Context) error {
	var rows [][]any
	for _, pot := range c.made {
		rows = append(rows, potRow(pot))
	}
	if err := bulk(ctx, c.tx, insertPotOnce, rows); err != nil {
		return fmt.Errorf("make windows: %w", err)
	}
	if err := c.book.write(ctx); err != nil {
		return err
	}
	if err := bulk(ctx, c.tx, upsertSpent, spentRows(c.spent)); err != nil {
		return fmt.Errorf("add to spent: %w", err)
	}
	for _, payer := range c.owing {
		if err := addDebt(ctx, c.tx, payer, c.debts[payer]); err != nil {
			return err
		}
	}
	return nil
}

// Finished see [quota.ProjectionStore]. A lane that is not closed, or has a batch behind the
// cursor, is left alone.
func (s *Store) Finished(ctx context.Context, c quota.Cursor) error {
	return s.write(ctx, "finish cursor", func(tx Tx) error {
		var state int16
		found, err := queryRow(ctx, tx, selectLaneState, []any{int64(c.Lane)}, &state)
		if err != nil || !found || state != int16(quota.LaneClosed) {
			return err
		}
		var body []byte
		more, err := queryRow(ctx, tx, selectBody, []any{int64(c.Lane), TagBatch, c.No + 1, int64(0)}, &body)
		if err != nil || more {
			return err
		}
		_, err = tx.Exec(ctx, finishCursor, int64(c.Lane), c.No)
		return err
	})
}
