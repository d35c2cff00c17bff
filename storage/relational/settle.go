package relational

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/purser-io/purser/quota"
)

const (
	selectLanes = `SELECT lane_id, state, gc_before FROM lanes
WHERE lane_id IN ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`
	insertJournal = `INSERT INTO journal (lane_id, tag, k1, k2, kind, body) VALUES ($1, $2, $3, $4, $5, $6)`
)

// Settle see [quota.JournalStore].
func (s *Store) Settle(ctx context.Context, guest quota.LaneID, no int64, records []quota.Record) ([]quota.Settlement, bool, error) {
	var fates []quota.Settlement
	var used, met bool
	err := s.write(ctx, "settle", func(tx Tx) (err error) {
		b := settling{tx: tx, guest: guest, no: no, records: records, look: met, fates: make([]quota.Settlement, len(records))}
		used, err = b.run(ctx)
		fates, met = b.fates, met || errors.Is(err, ErrDuplicate)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return fates, used, nil
}

// ownerLane is the lane of a reservation that somebody else settles.
type ownerLane struct {
	open     bool
	gcBefore int64
}

// settling is one guest batch in its transaction.
type settling struct {
	tx      Tx
	guest   quota.LaneID
	no      int64
	records []quota.Record
	look    bool // for entries that are there
	lanes   map[quota.LaneID]ownerLane
	entries map[quota.EntryKey]quota.Entry
	applied []quota.Record
	fates   []quota.Settlement
}

func (b *settling) run(ctx context.Context) (used bool, err error) {
	var stored []byte
	used, err = queryRow(ctx, b.tx, selectBody, []any{int64(b.guest), TagBatch, b.no, int64(0)}, &stored)
	if err != nil {
		return false, fmt.Errorf("look for the batch: %w", err)
	}
	if !used {
		if err := checkOpen(ctx, b.tx, b.guest); err != nil {
			return false, err
		}
	}
	if err := b.readLanes(ctx); err != nil {
		return false, fmt.Errorf("read lanes: %w", err)
	}
	// Mostly nothing is there, and where lanes are open the keys say so just as well (I5). What
	// was not read cannot have changed: next to busy owners a batch that looks first loses again
	// and again.
	b.entries = make(map[quota.EntryKey]quota.Entry)
	if b.look || used || !b.open() {
		if b.entries, err = readEntries(ctx, b.tx, keysOf(b.records)); err != nil {
			return false, err
		}
	}
	if used {
		// An earlier sending landed: what it wrote decides, and nothing more is written.
		for i := range b.records {
			b.fates[i] = b.recall(&b.records[i])
		}
		return true, nil
	}
	// In order, so that of two records of one reservation the second meets the first.
	for i := range b.records {
		b.fates[i] = b.judge(b.records[i])
	}
	if len(b.applied) == 0 {
		return false, nil
	}
	return true, b.write(ctx)
}

// readLanes reads the owners' lanes in the transaction that settles: the fence (R3, R27).
func (b *settling) readLanes(ctx context.Context) error {
	b.lanes = make(map[quota.LaneID]ownerLane)
	var ids []int64
	for i := range b.records {
		if id := int64(b.records[i].Lane); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for chunk := range slices.Chunk(ids, listed) {
		args := make([]any, listed)
		for i := range args {
			args[i] = chunk[min(i, len(chunk)-1)]
		}
		err := each(ctx, b.tx, selectLanes, args, func(rows Rows) error {
			var id, gcBefore int64
			var state int16
			err := rows.Scan(&id, &state, &gcBefore)
			b.lanes[quota.LaneID(id)] = ownerLane{open: state == int16(quota.LaneOpen), gcBefore: gcBefore}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// open reports whether the records' lanes all are: nothing is LATE then (R26).
func (b *settling) open() bool {
	for _, lane := range b.lanes {
		if !lane.open {
			return false
		}
	}
	return true
}

// decide is [quota.Judge] with what the store knows; decided records have a settlement.
func (b *settling) decide(r *quota.Record) (s quota.Settlement, apply, late bool) {
	lane, known := b.lanes[r.Lane]
	if !known || lane.gcBefore > r.ExpiresAt { // R16
		return quota.Settlement{Verdict: quota.VerdictTooOld}, false, false
	}
	return quota.Judge(lane.open, b.entry(r, quota.PhaseTerminal), b.entry(r, quota.PhaseLate), r)
}

func (b *settling) entry(r *quota.Record, phase uint8) *quota.Entry {
	e, ok := b.entries[quota.EntryKey{Lane: r.Lane, Sequence: r.Sequence, Phase: phase}]
	if !ok {
		return nil
	}
	return &e
}

// judge decides a record and, if it applies, puts it into the batch.
func (b *settling) judge(r quota.Record) quota.Settlement {
	fate, apply, late := b.decide(&r)
	if !apply {
		return fate
	}
	if late {
		r = r.Late(b.entry(&r, quota.PhaseTerminal)) // R26, R23
	}
	e := r.Entry(b.guest, b.no)
	b.entries[r.EntryKey] = e
	b.applied = append(b.applied, r)
	return quota.Settlement{Verdict: quota.VerdictApplied, Entry: e}
}

// recall answers a record of a batch that is written already. One that the earlier sending
// did not hold goes into the next batch.
func (b *settling) recall(r *quota.Record) quota.Settlement {
	for _, phase := range []uint8{quota.PhaseTerminal, quota.PhaseLate} {
		e := b.entry(r, phase)
		if e != nil && e.BatchLane == b.guest && e.BatchNo == b.no && e.Kind == r.Kind && e.Digest == r.Digest {
			return quota.Settlement{Verdict: quota.VerdictApplied, Entry: *e}
		}
	}
	fate, apply, _ := b.decide(r)
	if apply {
		return quota.Settlement{Verdict: quota.VerdictRetry}
	}
	return fate
}

// write inserts the batch, its entries under their owners' lanes, and a note for each owner
// that may still be there to read it.
func (b *settling) write(ctx context.Context) error {
	rows := []JournalRow{{Lane: int64(b.guest), Tag: TagBatch, K1: b.no, Body: quota.AppendRecords(nil, b.applied)}}
	notes := make(map[quota.LaneID]*quota.Note)
	var owners []quota.LaneID
	for i := range b.applied {
		e := b.applied[i].Entry(b.guest, b.no)
		rows = append(rows, entryRow(e))
		if !b.lanes[e.Lane].open {
			continue
		}
		if notes[e.Lane] == nil {
			notes[e.Lane] = &quota.Note{Lane: e.Lane, Guest: b.guest, BatchNo: b.no}
			owners = append(owners, e.Lane)
		}
		notes[e.Lane].Entries = append(notes[e.Lane].Entries, e)
	}
	for _, lane := range owners {
		rows = append(rows, JournalRow{Lane: int64(lane), Tag: TagNote, K1: int64(b.guest), K2: b.no,
			Body: quota.AppendNote(nil, notes[lane])})
	}
	return insertRows(ctx, b.tx, rows)
}

func insertRows(ctx context.Context, tx Tx, rows []JournalRow) error {
	args := make([][]any, len(rows))
	for i := range rows {
		r := &rows[i]
		args[i] = []any{r.Lane, r.Tag, r.K1, r.K2, r.Kind, r.Body}
	}
	return bulk(ctx, tx, insertJournal, args)
}
