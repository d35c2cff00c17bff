package quotatest

import (
	"context"
	"slices"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

// copyRecords makes records that share nothing with those of the sender.
func copyRecords(records []quota.Record) []quota.Record {
	out := slices.Clone(records)
	for i := range out {
		r := &out[i]
		r.Usage, r.Lines, r.Slots = slices.Clone(r.Usage), slices.Clone(r.Lines), slices.Clone(r.Slots)
		for j := range r.Slots {
			r.Slots[j].Parts = slices.Clone(r.Slots[j].Parts)
		}
	}
	return out
}

func copyEntry(e quota.Entry) quota.Entry {
	e.Parts = append([]token.Part(nil), e.Parts...)
	return e
}

// Append implements quota.JournalStore.
func (db *DB) Append(_ context.Context, id quota.LaneID, no int64, records []quota.Record) (res quota.AppendResult, err error) {
	records = copyRecords(records)
	err = db.do(OpAppend, func() (err error) {
		res, err = db.append(db.lanes[id], no, records)
		return err
	})
	if err != nil {
		return quota.AppendResult{}, err
	}
	return res, nil
}

func (db *DB) append(l *lane, no int64, records []quota.Record) (quota.AppendResult, error) {
	if there, ok := l.batches[no]; ok {
		if l.state != quota.LaneOpen && !sameBatch(there, records) {
			return quota.AppendResult{Fenced: true}, nil // who closed the lane took the number (R23)
		}
		if !sameBatch(there, records) {
			// A zombie whose number its successor inherited may find this; who waits for an
			// answer may not.
			return quota.AppendResult{}, quota.Errorf(quota.ReasonInvariantViolated, "R20: two batches under one number")
		}
		return quota.AppendResult{Applied: true}, nil
	}
	if l.state != quota.LaneOpen && !db.Break.NoFence {
		return quota.AppendResult{Fenced: true}, nil
	}
	var winners []quota.Entry
	for i := range records {
		if e, ok := l.entries[entryKey{records[i].Sequence, records[i].Phase}]; ok && !db.Break.NoKey {
			winners = append(winners, copyEntry(e))
		}
	}
	if len(winners) > 0 {
		return quota.AppendResult{Winners: winners}, nil
	}
	set(&l.batches, no, records)
	for i := range records {
		db.enter(records[i].Entry(l.id, no), &records[i])
	}
	return quota.AppendResult{Applied: true}, nil
}

func sameBatch(a, b []quota.Record) bool {
	return slices.EqualFunc(a, b, func(x, y quota.Record) bool {
		return x.EntryKey == y.EntryKey && x.Kind == y.Kind && x.Digest == y.Digest && x.Charged() == y.Charged()
	})
}

// enter writes an entry under its owner's lane.
func (db *DB) enter(e quota.Entry, r *quota.Record) {
	l := db.lanes[e.Lane]
	db.Oracle.entered(l, &e, r)
	set(&l.entries, entryKey{e.Sequence, e.Phase}, copyEntry(e))
}

// Settle implements quota.JournalStore.
func (db *DB) Settle(_ context.Context, guest quota.LaneID, no int64, records []quota.Record) (fates []quota.Settlement, used bool, err error) {
	records = copyRecords(records)
	err = db.do(OpSettle, func() (err error) {
		fates, used, err = db.settle(db.lanes[guest], no, records)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return fates, used, nil
}

func (db *DB) settle(g *lane, no int64, records []quota.Record) (fates []quota.Settlement, used bool, err error) {
	fates = make([]quota.Settlement, len(records))
	if _, there := g.batches[no]; there {
		for i := range records {
			fates[i] = db.recall(g.id, no, &records[i])
		}
		return fates, true, nil
	}
	if g.state != quota.LaneOpen {
		return nil, false, fenced("the guest lane is not open")
	}
	var applied []quota.Record
	notes := make(map[quota.LaneID]*quota.Note)
	for i := range records {
		r := records[i]
		fate, apply, late := db.judge(&r)
		fates[i] = fate
		if !apply {
			continue
		}
		switch {
		case late && db.Break.LateFromHold:
			r.Phase = quota.PhaseLate
		case late:
			behind := db.lanes[r.Lane].entry(r.Sequence, quota.PhaseTerminal)
			if db.Break.InterimTwice {
				behind = nil
			}
			r = r.Late(behind)
		}
		e := r.Entry(g.id, no)
		fates[i] = quota.Settlement{Verdict: quota.VerdictApplied, Entry: copyEntry(e)}
		applied = append(applied, r)
		if l := db.lanes[r.Lane]; l.state == quota.LaneOpen {
			if notes[l.id] == nil {
				notes[l.id] = &quota.Note{Lane: l.id, Guest: g.id, BatchNo: no}
			}
			notes[l.id].Entries = append(notes[l.id].Entries, copyEntry(e))
		}
		db.enter(e, &r)
	}
	if len(applied) == 0 {
		return fates, false, nil
	}
	set(&g.batches, no, applied)
	for _, l := range db.laneOrder {
		if n := notes[l.id]; n != nil {
			l.notes = append(l.notes, *n)
		}
	}
	return fates, true, nil
}

// judge is quota.Judge with what the database knows.
func (db *DB) judge(r *quota.Record) (s quota.Settlement, apply, late bool) {
	l := db.lanes[r.Lane]
	if l == nil || l.gcBefore > r.ExpiresAt { // R16
		return quota.Settlement{Verdict: quota.VerdictTooOld}, false, false
	}
	lateEntry := l.entry(r.Sequence, quota.PhaseLate)
	if db.Break.LateTwice {
		lateEntry = nil
	}
	judge := quota.Judge
	if db.Break.Judge != nil {
		judge = db.Break.Judge
	}
	return judge(l.state == quota.LaneOpen, l.entry(r.Sequence, quota.PhaseTerminal), lateEntry, r)
}

// entry is a copy of an entry, nil if there is none.
func (l *lane) entry(sequence uint64, phase uint8) *quota.Entry {
	e, ok := l.entries[entryKey{sequence, phase}]
	if !ok {
		return nil
	}
	e = copyEntry(e)
	return &e
}

// recall answers a record of a guest batch that is there already.
func (db *DB) recall(guest quota.LaneID, no int64, r *quota.Record) quota.Settlement {
	for _, phase := range []uint8{quota.PhaseTerminal, quota.PhaseLate} {
		e := db.lanes[r.Lane].entry(r.Sequence, phase)
		if e != nil && e.BatchLane == guest && e.BatchNo == no && e.Kind == r.Kind && e.Digest == r.Digest {
			return quota.Settlement{Verdict: quota.VerdictApplied, Entry: *e}
		}
	}
	fate, apply, _ := db.judge(r)
	if apply {
		return quota.Settlement{Verdict: quota.VerdictRetry}
	}
	return fate
}
