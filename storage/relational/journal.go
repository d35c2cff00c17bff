package relational

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/purser-io/purser/quota"
)

const (
	selectBody    = `SELECT body FROM journal WHERE lane_id = $1 AND tag = $2 AND k1 = $3 AND k2 = $4`
	selectEntries = `SELECT k1, k2, body FROM journal
WHERE lane_id = $1 AND tag = 2 AND k1 IN ($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)`
)

// errEntryGone says that a unique violation was met and what it was about is not there: the
// batch was not written, and the same batch may be sent again.
const errEntryGone = duplicate("what the batch collided with is gone")

// Append see [quota.JournalStore]. What is true of an ambiguous sending is read from the
// store, never guessed (R5, R17).
func (s *Store) Append(ctx context.Context, lane quota.LaneID, no int64, records []quota.Record) (quota.AppendResult, error) {
	rows, err := batchRows(lane, no, records)
	if err != nil {
		return quota.AppendResult{}, err
	}
	inserted, err := s.Driver.Append(ctx, lane, rows)
	switch {
	case errors.Is(err, ErrDuplicate):
		return s.winners(ctx, lane, no, records, rows[0].Body)
	case err != nil:
		return quota.AppendResult{}, fmt.Errorf("append batch %d: %w", no, err)
	case inserted == 0:
		return s.fencedOrLanded(ctx, lane, no, rows[0].Body)
	case inserted != int64(len(rows)):
		return quota.AppendResult{}, violated("append batch %d: %d of %d rows were inserted", no, inserted, len(rows))
	}
	return quota.AppendResult{Applied: true}, nil
}

// batchRows is the batch's row, then one for each entry.
func batchRows(lane quota.LaneID, no int64, records []quota.Record) ([]JournalRow, error) {
	rows := make([]JournalRow, 1, len(records)+1)
	rows[0] = JournalRow{Lane: int64(lane), Tag: TagBatch, K1: no, Body: quota.AppendRecords(nil, records)}
	seen := make(map[quota.EntryKey]struct{}, len(records))
	for i := range records {
		r := &records[i]
		if _, twice := seen[r.EntryKey]; twice || r.Lane != lane {
			return nil, violated("append batch %d: entry (%d, %d, %d) is there twice or of another lane", no, r.Lane, r.Sequence, r.Phase)
		}
		seen[r.EntryKey] = struct{}{}
		rows = append(rows, entryRow(r.Entry(lane, no)))
	}
	return rows, nil
}

func entryRow(e quota.Entry) JournalRow {
	return JournalRow{Lane: int64(e.Lane), Tag: TagEntry, K1: int64(e.Sequence), K2: int64(e.Phase), Kind: int16(e.Kind),
		Body: quota.AppendEntry(nil, &e)}
}

// fencedOrLanded tells a fenced batch from one that an earlier sending wrote before the fence.
func (s *Store) fencedOrLanded(ctx context.Context, lane quota.LaneID, no int64, body []byte) (out quota.AppendResult, err error) {
	err = s.read(ctx, "append: look for the batch", func(tx Tx) error {
		applied, err := ownBatch(ctx, tx, lane, no, body)
		out = quota.AppendResult{Applied: applied, Fenced: !applied}
		return err
	})
	return out, err
}

// winners tells a batch that is there already from one whose keys others had settled.
func (s *Store) winners(ctx context.Context, lane quota.LaneID, no int64, records []quota.Record, body []byte) (out quota.AppendResult, err error) {
	err = s.read(ctx, "append: look for the winners", func(tx Tx) error {
		applied, err := ownBatch(ctx, tx, lane, no, body)
		if err != nil || applied {
			out = quota.AppendResult{Applied: applied}
			return err
		}
		found, err := readEntries(ctx, tx, keysOf(records))
		if err != nil {
			return err
		}
		out = quota.AppendResult{}
		for i := range records {
			if e, ok := found[records[i].EntryKey]; ok {
				out.Winners = append(out.Winners, e)
			}
		}
		return nil
	})
	if err == nil && !out.Applied && len(out.Winners) == 0 {
		err = quota.Wrap(quota.ReasonContention, "the batch was not written; send it again", errEntryGone)
	}
	return out, err
}

func keysOf(records []quota.Record) []quota.EntryKey {
	keys := make([]quota.EntryKey, len(records))
	for i := range records {
		keys[i] = records[i].EntryKey
	}
	return keys
}

// ownBatch reports whether the batch is in the journal with the same content. Other content
// under its number would be two writers in one lane, unless that is fenced: then who closed it
// may have taken the number for what expired with usage (R23).
func ownBatch(ctx context.Context, tx Tx, lane quota.LaneID, no int64, body []byte) (bool, error) {
	var stored []byte
	found, err := queryRow(ctx, tx, selectBody, []any{int64(lane), TagBatch, no, int64(0)}, &stored)
	if err != nil || !found {
		return false, err
	}
	if bytes.Equal(stored, body) {
		return true, nil
	}
	err = checkOpen(ctx, tx, lane)
	switch {
	case err == nil:
		return false, violated("batch %d of lane %d is there with other content", no, lane)
	case errors.Is(err, quota.ReasonFenced):
		return false, nil
	}
	return false, err
}

// readEntries finds the entries that exist under keys, of both phases of their sequences.
func readEntries(ctx context.Context, tx Tx, keys []quota.EntryKey) (map[quota.EntryKey]quota.Entry, error) {
	found := make(map[quota.EntryKey]quota.Entry)
	byLane := make(map[quota.LaneID][]int64)
	var lanes []quota.LaneID
	for _, k := range keys {
		if byLane[k.Lane] == nil {
			lanes = append(lanes, k.Lane)
		}
		byLane[k.Lane] = append(byLane[k.Lane], int64(k.Sequence))
	}
	for _, lane := range lanes {
		for chunk := range slices.Chunk(byLane[lane], listed) {
			args := []any{int64(lane)}
			for i := range listed {
				args = append(args, chunk[min(i, len(chunk)-1)])
			}
			err := each(ctx, tx, selectEntries, args, func(rows Rows) error {
				e, err := scanEntry(rows, lane)
				found[e.EntryKey] = e
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("read entries: %w", err)
			}
		}
	}
	return found, nil
}

// scanEntry reads the columns k1, k2, body of an entry's row.
func scanEntry(rows Rows, lane quota.LaneID) (quota.Entry, error) {
	var sequence, phase int64
	var body []byte
	if err := rows.Scan(&sequence, &phase, &body); err != nil {
		return quota.Entry{}, err
	}
	return quota.DecodeEntry(quota.EntryKey{Lane: lane, Sequence: uint64(sequence), Phase: uint8(phase)}, body)
}
