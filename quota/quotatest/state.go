package quotatest

import (
	"encoding/binary"
	"slices"

	"github.com/purser-io/purser/quota"
)

// A state is written down in two parts, so that reservations that differ by name only can be
// told to be alike: what is of the whole database, and what is of one reservation. Two
// databases with equal parts answer alike from then on, and their oracles judge alike. What
// people read (events, figures of the projector) follows from batches and cursors, and is left
// out; so are accounts, budgets and change rows, and notes: there is one as long as an owner has a
// hold that a guest lane settled.

// AppendState appends all that does not belong to one reservation.
func (db *DB) AppendState(b []byte, numbers bool) []byte {
	b = binary.AppendVarint(b, db.Now)
	for _, p := range db.potOrder {
		b = appendInts(b, p.Available, p.Escrowed, p.Spent, p.Expired, p.Refunded, p.Direct, db.debts[p.Payer])
	}
	for _, l := range db.laneOrder {
		b = appendInts(b, int64(l.state), int64(l.owner.state), l.owner.issueUntil, l.owner.holdUntil, l.cursor)
		if numbers {
			b = appendInts(b, int64(len(l.batches)))
		}
		for _, no := range l.sorted() {
			a := l.allotments[no]
			b = appendInts(b, int64(no), a.Amount, a.Spent, a.shrinks, flag(a.Closed))
		}
		b = append(b, 0)
	}
	return b
}

// sorted lists the numbers of the lane's allotments, traces of empty draws included.
func (l *lane) sorted() []quota.AllotmentNo {
	if len(l.numbers) == len(l.allotments) {
		return l.numbers
	}
	out := make([]quota.AllotmentNo, 0, len(l.allotments))
	for no := range l.allotments {
		out = append(out, no)
	}
	slices.Sort(out)
	return out
}

// AppendReservation appends what is known of one reservation: its token, its entries, and what
// was said about it. With numbers set it says in which batch an entry came: without projections
// in between, histories that differ in nothing else are alike. over says that nobody has the
// reservation in hand any more; if it has ended too, all that matters is how.
func (db *DB) AppendReservation(b []byte, k quota.EntryKey, numbers, over bool) []byte {
	i := db.Oracle.tokens[k]
	if over = over && i.terminal != nil; !over {
		b = appendInts(b, i.IssuedAt, i.Expires, int64(i.Generation), flag(i.Released && i.terminal == nil))
		for _, s := range i.Slots {
			for _, p := range s.Parts {
				b = appendInts(b, int64(p.Allotment), p.Amount)
			}
			b = append(b, 0)
		}
	}
	b = appendInts(b, flag(i.no), flag(len(i.acks) > 0), i.Floor)
	if !over {
		x := db.lanes[k.Lane].interim[k.Sequence]
		b = appendInts(b, x.Number, x.Record.Charged())
	}
	for phase := range uint8(2) {
		e, ok := db.lanes[k.Lane].entries[entryKey{k.Sequence, phase}]
		if !ok {
			b = append(b, 0)
			continue
		}
		b = appendInts(b, int64(e.Kind), e.Charged, e.Uncovered)
		for _, p := range e.Parts {
			b = appendInts(b, int64(p.Allotment), p.Amount)
		}
		b = append(b, 0)
		if !over {
			b = appendInts(b, int64(e.Digest), int64(e.BatchLane))
		}
		if numbers {
			b = appendInts(b, e.BatchNo)
		}
	}
	return b
}

func appendInts(b []byte, ints ...int64) []byte {
	for _, x := range ints {
		b = binary.AppendVarint(b, x)
	}
	return b
}

func flag(set bool) int64 {
	if set {
		return 1
	}
	return 0
}
