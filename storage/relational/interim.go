package relational

import (
	"context"
	"fmt"

	"github.com/purser-io/purser/quota"
)

const (
	// The highest number counts: a sending that lands late changes nothing.
	upsertInterim = `INSERT INTO interims (lane_id, sequence, number, expire_time, body) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (lane_id, sequence) DO UPDATE SET number = excluded.number, expire_time = excluded.expire_time, body = excluded.body
WHERE interims.number < excluded.number`
	selectUnsettled = `SELECT i.body FROM interims i WHERE i.lane_id = $1 AND i.expire_time >= $2
AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.lane_id = i.lane_id AND j.tag = 2 AND j.k1 = i.sequence)
ORDER BY i.sequence LIMIT $3`
	selectLastBatch = `SELECT COALESCE(MAX(k1), 0) FROM journal WHERE lane_id = $1 AND tag = 1`
)

// Interim see [quota.JournalStore].
func (s *Store) Interim(ctx context.Context, lane quota.LaneID, interims []quota.Interim) (ended []quota.Entry, err error) {
	err = s.write(ctx, "interim", func(tx Tx) (err error) {
		ended, err = noteInterims(ctx, tx, lane, interims)
		return err
	})
	if err != nil {
		return nil, err
	}
	return ended, nil
}

func noteInterims(ctx context.Context, tx Tx, lane quota.LaneID, interims []quota.Interim) (ended []quota.Entry, err error) {
	if err := checkOpen(ctx, tx, lane); err != nil {
		return nil, err
	}
	keys := make([]quota.EntryKey, len(interims))
	for i := range interims {
		r := &interims[i].Record
		if keys[i] = r.EntryKey; r.Lane != lane || r.Kind != quota.Expired {
			return nil, violated("interim usage of (%d, %d), %s, in lane %d", r.Lane, r.Sequence, r.Kind, lane)
		}
	}
	entries, err := readEntries(ctx, tx, keys)
	if err != nil {
		return nil, err
	}
	var rows [][]any
	for i := range interims {
		r := &interims[i].Record
		if e := lastEntry(entries, r.EntryKey); e != nil {
			ended = append(ended, *e)
			continue
		}
		rows = append(rows, []any{int64(lane), int64(r.Sequence), interims[i].Number, r.ExpiresAt, quota.AppendRecords(nil, []quota.Record{*r})})
	}
	if err := bulk(ctx, tx, upsertInterim, rows); err != nil {
		return nil, fmt.Errorf("write interims: %w", err)
	}
	return ended, nil
}

// lastEntry is how a reservation ended, LATE before terminal; nil = it did not.
func lastEntry(entries map[quota.EntryKey]quota.Entry, k quota.EntryKey) *quota.Entry {
	for _, phase := range []uint8{quota.PhaseLate, quota.PhaseTerminal} {
		k.Phase = phase
		if e, ok := entries[k]; ok {
			return &e
		}
	}
	return nil
}

// expireInterims charges what the owner of a fenced lane cannot any more: reservations that were
// never settled expire with the usage noted, at most limit of them, in a last batch of the lane,
// to which nobody else writes (R23). One that was charged LATE has had its client's last word.
// What may have been settled so long ago that the journal forgot it stays as it is (R16).
func expireInterims(ctx context.Context, tx Tx, lane quota.LaneID, gcBefore, now int64, limit int) (count int, err error) {
	var records []quota.Record
	err = each(ctx, tx, selectUnsettled, []any{int64(lane), gcBefore, int64(limit)}, func(rows Rows) error {
		r, err := scanInterim(rows)
		r.SettledAt = now
		records = append(records, r)
		return err
	})
	if err != nil || len(records) == 0 {
		return 0, err
	}
	var last int64
	if _, err := queryRow(ctx, tx, selectLastBatch, []any{int64(lane)}, &last); err != nil {
		return 0, err
	}
	rows, err := batchRows(lane, last+1, records)
	if err != nil {
		return 0, err
	}
	return len(records), insertRows(ctx, tx, rows)
}

// scanInterim reads the body of an interim's row.
func scanInterim(rows Rows) (quota.Record, error) {
	var body []byte
	if err := rows.Scan(&body); err != nil {
		return quota.Record{}, err
	}
	return decodeInterim(body)
}

func decodeInterim(body []byte) (quota.Record, error) {
	records, err := quota.DecodeRecords(body)
	if err != nil {
		return quota.Record{}, err
	}
	if len(records) != 1 {
		return quota.Record{}, violated("an interim's row has %d records", len(records))
	}
	return records[0], nil
}
