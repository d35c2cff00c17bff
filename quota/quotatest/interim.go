package quotatest

import (
	"maps"
	"slices"

	"github.com/purser-io/purser/quota"
)

// Interim usage (R23), as docs/verification.md lays it down. The model has it before anything is
// built on it.

// Interim notes what a reservation has used so far: r is what an EXPIRED record would charge for
// it. The highest counts, whatever the order. It reports whether the usage stands; a reservation
// that has ended, or whose lane is fenced, takes none.
func (db *DB) Interim(r *quota.Record) bool {
	l := db.lanes[r.Lane]
	if l.state != quota.LaneOpen || l.entry(r.Sequence, quota.PhaseTerminal) != nil {
		return false
	}
	if r.Charged() > db.InterimOf(r.EntryKey) {
		set(&l.interim, r.Sequence, copyRecords([]quota.Record{*r})[0])
	}
	return true
}

// InterimOf is the highest interim charge noted of a reservation.
func (db *DB) InterimOf(k quota.EntryKey) int64 {
	r, ok := db.lanes[k.Lane].interim[k.Sequence]
	if !ok {
		return 0
	}
	return r.Charged()
}

// expireInterim is what closing a lane does first, in its transaction: reservations that were never
// settled expire with the usage noted, as the lane's last batch. Who was charged LATE, behind the
// fence, has been charged for that usage too.
func (db *DB) expireInterim(l *lane) {
	var batch []quota.Record
	for _, sequence := range slices.Sorted(maps.Keys(l.interim)) {
		if l.entry(sequence, quota.PhaseTerminal) != nil || l.entry(sequence, quota.PhaseLate) != nil && !db.Break.InterimBesideLate {
			continue
		}
		batch = append(batch, l.interim[sequence])
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

// behind takes off a LATE charge what the expiry before it has charged already.
func behind(terminal *quota.Entry, r quota.Record) quota.Record {
	if terminal == nil {
		return r
	}
	r.Lines, r.Slots = slices.Clone(r.Lines), slices.Clone(r.Slots)
	left := terminal.Charged
	for i := range r.Lines {
		x := min(left, r.Lines[i])
		r.Lines[i], left = r.Lines[i]-x, left-x
	}
	for i := range r.Slots { // of the wallet: the small model interims without windows
		s := &r.Slots[i]
		s.Charge = max(s.Charge-terminal.Charged, 0)
		s.Uncovered = s.Charge
	}
	return r
}
