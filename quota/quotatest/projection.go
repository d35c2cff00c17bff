package quotatest

import (
	"context"
	"strconv"
	"strings"

	"github.com/purser-io/purser/quota"
)

// Projectable implements quota.ProjectionStore.
func (db *DB) Projectable(_ context.Context, self string) (out []quota.Cursor, err error) {
	for _, l := range db.laneOrder {
		if !l.finished && (l.owner.id == self || l.owner.state != quota.IncarnationLive) {
			out = append(out, quota.Cursor{Lane: l.id, No: l.cursor, Closed: l.state == quota.LaneClosed})
		}
	}
	return out, nil
}

// Cursor tells how far a lane has been projected.
func (db *DB) Cursor(id quota.LaneID) quota.Cursor {
	l := db.lanes[id]
	return quota.Cursor{Lane: id, No: l.cursor, Closed: l.state == quota.LaneClosed}
}

// LastBatch is the highest number of a batch in a lane, 0 if there is none.
func (db *DB) LastBatch(id quota.LaneID) (last int64) {
	for no := range db.lanes[id].batches {
		last = max(last, no)
	}
	return last
}

// Batches implements quota.ProjectionStore.
func (db *DB) Batches(_ context.Context, c quota.Cursor, limit int) (out []quota.Batch, err error) {
	l := db.lanes[c.Lane]
	for no := c.No + 1; len(out) < limit; no++ {
		records, ok := l.batches[no]
		if !ok {
			break
		}
		out = append(out, quota.Batch{Lane: c.Lane, No: no, Records: copyRecords(records)})
	}
	return out, nil
}

// PotsOf implements quota.ProjectionStore.
func (db *DB) PotsOf(_ context.Context, refs []quota.AllotmentRef) (map[quota.AllotmentRef]quota.PotRef, error) {
	out := make(map[quota.AllotmentRef]quota.PotRef, len(refs))
	for _, ref := range refs {
		if a := db.lanes[ref.Lane].allotments[ref.Number]; a != nil {
			out[ref] = a.PotRef
		}
	}
	return out, nil
}

// Project implements quota.ProjectionStore.
func (db *DB) Project(_ context.Context, p *quota.Projection) (applied bool, err error) {
	err = db.do(OpProject, func() error {
		l := db.lanes[p.Lane]
		if applied = l.cursor == p.From || db.Break.CursorUnchecked; !applied {
			return nil
		}
		l.cursor = p.To
		db.events = append(db.events, p.Events...)
		for _, s := range p.Spent {
			set(&db.spent, s.PotRef, db.spent[s.PotRef]+s.Amount)
		}
		for i := range p.Claims {
			db.claim(&p.Claims[i], p.Now)
		}
		return nil
	})
	return applied && err == nil, err
}

// claim debits what no allotment covered (R25).
func (db *DB) claim(c *quota.Claim, now int64) {
	if c.Kind != quota.PotWallet {
		ref := quota.PotRef{Payer: c.Payer, Pot: c.Pot}
		p := db.pots[ref]
		if p == nil {
			f := strings.SplitN(c.Pot, "/", 5)
			start, _ := strconv.ParseInt(f[3], 36, 64)
			p = db.addPot(quota.Pot{Payer: c.Payer, ID: c.Pot, Kind: c.Kind, Account: f[1], Limit: f[2], Start: start, Selector: f[4]})
		}
		p.Direct += c.Amount
		return
	}
	set(&db.claimed, c.Payer, db.claimed[c.Payer]+c.Amount)
	left := c.Amount
	for _, g := range db.openGrants(c.Payer, now) {
		x := min(left, g.Available)
		g.Available -= x
		g.Direct += x
		db.count(g, x)
		left -= x
	}
	if left > 0 {
		set(&db.debts, c.Payer, db.debts[c.Payer]+left)
		db.change(c.Payer)
		db.bump(quota.ChangeAccount, c.Payer)
	}
}

// Finished implements quota.ProjectionStore.
func (db *DB) Finished(_ context.Context, c quota.Cursor) error {
	l := db.lanes[c.Lane]
	if _, more := l.batches[c.No+1]; l.state == quota.LaneClosed && !more && l.cursor == c.No {
		l.finished = true
	}
	return nil
}
