package relational

import (
	"context"

	"github.com/purser-io/purser/quota"
)

const (
	auditPots = `SELECT payer_id, pot_id, kind, unit, granted, available, escrowed, spent, expired, refunded, direct,
       start_time, end_time, account_id, limit_id, selector, grant_kind, priority, cost_basis, note, voided, create_time
FROM pots ORDER BY payer_id, pot_id`
	auditAllotments = `SELECT lane_id, number, payer_id, pot_id, amount, spent, state FROM allotments ORDER BY lane_id, number`
	auditLanes      = `SELECT l.lane_id, l.incarnation_id, l.state, l.guest, c.batch_no, i.node, i.state FROM lanes l
JOIN cursors c ON c.lane_id = l.lane_id JOIN incarnations i ON i.id = l.incarnation_id ORDER BY l.lane_id`
	auditEntries  = `SELECT lane_id, k1, k2, body FROM journal WHERE tag = 2 ORDER BY lane_id, tag, k1, k2`
	auditBatches  = `SELECT lane_id, k1, body FROM journal WHERE tag = 1 ORDER BY lane_id, tag, k1, k2`
	auditInterims = `SELECT i.lane_id, i.sequence, i.number, i.body, t.body, l.body FROM interims i
LEFT JOIN journal t ON t.lane_id = i.lane_id AND t.tag = 2 AND t.k1 = i.sequence AND t.k2 = 0
LEFT JOIN journal l ON l.lane_id = i.lane_id AND l.tag = 2 AND l.k1 = i.sequence AND l.k2 = 1
ORDER BY i.lane_id, i.sequence`
	auditDebts  = `SELECT payer_id, debt FROM debts ORDER BY payer_id`
	auditSpent  = `SELECT payer_id, pot_id, amount FROM spent ORDER BY payer_id, pot_id`
	auditEvents = `SELECT lane_id, sequence, phase, account_id, payer_id, principal, feature, labels, price_version,
       usage, charged, covered, uncovered, grants, outcome, reserve_time, settle_time, nonce
FROM usage_events ORDER BY lane_id, sequence, phase`
)

// Audit see [quota.AuditStore]. If the database makes the transaction run again, fn runs
// again with a new reader.
func (s *Store) Audit(ctx context.Context, fn func(quota.AuditReader) error) error {
	return s.Snapshot(ctx, func(tx Tx) error { return fn(&auditReader{ctx: ctx, tx: tx}) })
}

// auditReader is a quota.AuditReader over one transaction, and lives as long as that does.
type auditReader struct {
	ctx context.Context
	tx  Tx
}

func (a *auditReader) each(sql string, scan func(Rows) error) error {
	return each(a.ctx, a.tx, sql, nil, scan)
}

// Pots see [quota.AuditReader].
func (a *auditReader) Pots(fn func(quota.Pot) error) error {
	return a.each(auditPots, func(rows Rows) error {
		p, err := scanPot(rows)
		if err != nil {
			return err
		}
		return fn(p)
	})
}

// Allotments see [quota.AuditReader].
func (a *auditReader) Allotments(fn func(quota.AllotmentRow) error) error {
	return a.each(auditAllotments, func(rows Rows) error {
		var r quota.AllotmentRow
		var lane, number int64
		var state int16
		if err := rows.Scan(&lane, &number, &r.Payer, &r.Pot, &r.Amount, &r.Spent, &state); err != nil {
			return err
		}
		r.Lane, r.Number, r.Closed = quota.LaneID(lane), quota.AllotmentNo(number), state == allotmentClosed
		return fn(r)
	})
}

// Lanes see [quota.AuditReader].
func (a *auditReader) Lanes(fn func(quota.LaneRow) error) error {
	return a.each(auditLanes, func(rows Rows) error {
		var r quota.LaneRow
		var lane int64
		var state, guest, node int16
		if err := rows.Scan(&lane, &r.Incarnation, &state, &guest, &r.Cursor, &r.Node, &node); err != nil {
			return err
		}
		r.Lane, r.Guest = quota.LaneID(lane), guest != 0
		r.State, r.NodeState = quota.LaneState(state), quota.IncarnationState(node)
		return fn(r)
	})
}

// Entries see [quota.AuditReader].
func (a *auditReader) Entries(fn func(quota.Entry) error) error {
	return a.each(auditEntries, func(rows Rows) error {
		var lane, sequence, phase int64
		var body []byte
		if err := rows.Scan(&lane, &sequence, &phase, &body); err != nil {
			return err
		}
		key := quota.EntryKey{Lane: quota.LaneID(lane), Sequence: uint64(sequence), Phase: uint8(phase)}
		e, err := quota.DecodeEntry(key, body)
		if err != nil {
			return err
		}
		return fn(e)
	})
}

// Batches see [quota.AuditReader].
func (a *auditReader) Batches(fn func(quota.Batch) error) error {
	return a.each(auditBatches, func(rows Rows) error {
		var lane int64
		var b quota.Batch
		var body []byte
		if err := rows.Scan(&lane, &b.No, &body); err != nil {
			return err
		}
		var err error
		b.Lane = quota.LaneID(lane)
		if b.Records, err = quota.DecodeRecords(body); err != nil {
			return err
		}
		return fn(b)
	})
}

// Interims see [quota.AuditReader].
func (a *auditReader) Interims(fn func(quota.InterimRow) error) error {
	return a.each(auditInterims, func(rows Rows) error {
		var r quota.InterimRow
		var lane, sequence int64
		var body, terminal, late []byte
		if err := rows.Scan(&lane, &sequence, &r.Number, &body, &terminal, &late); err != nil {
			return err
		}
		r.Lane, r.Sequence = quota.LaneID(lane), uint64(sequence)
		var err error
		if r.Record, err = decodeInterim(body); err != nil {
			return err
		}
		if r.Terminal, err = entryOf(&r, quota.PhaseTerminal, terminal); err != nil {
			return err
		}
		if r.Late, err = entryOf(&r, quota.PhaseLate, late); err != nil {
			return err
		}
		return fn(r)
	})
}

// entryOf decodes an entry beside an interim; nil if there is none.
func entryOf(r *quota.InterimRow, phase uint8, body []byte) (*quota.Entry, error) {
	if body == nil {
		return nil, nil
	}
	e, err := quota.DecodeEntry(quota.EntryKey{Lane: r.Lane, Sequence: r.Sequence, Phase: phase}, body)
	return &e, err
}

// Debts see [quota.AuditReader].
func (a *auditReader) Debts(fn func(payer string, debt int64) error) error {
	return a.each(auditDebts, func(rows Rows) error {
		var payer string
		var debt int64
		if err := rows.Scan(&payer, &debt); err != nil {
			return err
		}
		return fn(payer, debt)
	})
}

// Spent see [quota.AuditReader].
func (a *auditReader) Spent(fn func(quota.SpentRow) error) error {
	return a.each(auditSpent, func(rows Rows) error {
		var r quota.SpentRow
		if err := rows.Scan(&r.Payer, &r.Pot, &r.Amount); err != nil {
			return err
		}
		return fn(r)
	})
}

// UsageEvents see [quota.AuditReader].
func (a *auditReader) UsageEvents(fn func(quota.UsageEvent) error) error {
	return a.each(auditEvents, func(rows Rows) error {
		e, err := scanUsageEvent(rows)
		if err != nil {
			return err
		}
		return fn(e)
	})
}
