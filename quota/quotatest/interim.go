package quotatest

import (
	"context"
	"maps"
	"slices"

	"github.com/purser-io/purser/quota"
)

// Interim implements quota.JournalStore (R23).
func (db *DB) Interim(_ context.Context, id quota.LaneID, interims []quota.Interim) (ended []quota.Entry, err error) {
	interims = slices.Clone(interims)
	for i := range interims {
		interims[i].Record = copyRecords([]quota.Record{interims[i].Record})[0]
	}
	err = db.do(OpInterim, func() (err error) {
		ended, err = db.note(db.lanes[id], interims)
		return err
	})
	if err != nil {
		return nil, err
	}
	return ended, nil
}

func (db *DB) note(l *lane, interims []quota.Interim) (ended []quota.Entry, err error) {
	if l.state != quota.LaneOpen {
		return nil, fenced("the lane is not open")
	}
next:
	for i := range interims {
		x := &interims[i]
		for _, phase := range []uint8{quota.PhaseLate, quota.PhaseTerminal} {
			if e := l.entry(x.Record.Sequence, phase); e != nil {
				ended = append(ended, *e)
				continue next
			}
		}
		if x.Number > l.interim[x.Record.Sequence].Number {
			set(&l.interim, x.Record.Sequence, *x)
		}
	}
	return ended, nil
}

// InterimOf is the number of the interim that counts of a reservation; 0 = there is none.
func (db *DB) InterimOf(k quota.EntryKey) int64 { return db.lanes[k.Lane].interim[k.Sequence].Number }

// expireInterim is what closing a lane does first, in its transaction: reservations that were never
// settled expire with the usage noted, as the lane's last batch. Who was charged LATE, behind the
// fence, has been charged for that usage too.
func (db *DB) expireInterim(l *lane) {
	var batch []quota.Record
	for _, sequence := range slices.Sorted(maps.Keys(l.interim)) {
		if l.entry(sequence, quota.PhaseTerminal) != nil || l.entry(sequence, quota.PhaseLate) != nil && !db.Break.InterimBesideLate {
			continue
		}
		r := l.interim[sequence].Record
		if l.gcBefore > r.ExpiresAt { // R16
			continue
		}
		r.SettledAt = db.Now
		batch = append(batch, r)
	}
	if len(batch) == 0 || db.Break.InterimForgotten {
		return
	}
	no := db.LastBatch(l.id) + 1
	set(&l.batches, no, batch)
	for i := range batch {
		db.enter(batch[i].Entry(l.id, no), &batch[i])
	}
}
